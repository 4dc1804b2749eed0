#!/usr/bin/env python3
"""Each rule of the checker, with a history that breaks it and one beside it that does not."""
import unittest

from checker import Checker, Topic


class History:
    """Writes histories in few words; each event is a second after the one before."""
    def __init__(self):
        self.events = []

    def add(self, **event):
        self.events.append(dict(event, at=float(len(self.events) + 1)))
        return self

    def publish(self, label, key=False, topic='fsync.a', by='p0', session=1):
        return self.add(do='publish', label=label, key=key, topic=topic, by=by, session=session)

    def ok(self, label, offset, epoch='e', duplicate=False, topic='fsync.a', stored='fsync', by='p0', session=1):
        return self.add(do='ok', label=label, offset=offset, epoch=epoch, duplicate=duplicate, topic=topic,
                        stored=stored, by=by, session=session)

    def stored(self, label, offset, **more):
        return self.publish(label, topic=more.get('topic', 'fsync.a')).ok(label, offset, **more)

    def subscribed(self, newest, since=None, recovered=None, epoch='e', by='s0', session=1, topic='fsync.a'):
        self.add(do='subscribe', topic=topic, by=by, session=session, since=since)
        return self.add(do='subscribed', topic=topic, by=by, session=session, epoch=epoch, offset=newest,
                        recovered=recovered)

    def message(self, offset, label, by='s0', session=1, topic='fsync.a'):
        return self.add(do='message', topic=topic, by=by, session=session, offset=offset, label=label)

    def gap(self, first, last, by='s0', session=1, topic='fsync.a'):
        return self.add(do='gap', topic=topic, by=by, session=session, first=first, last=last)

    def joined(self, by='c0', session=1, durable='each', acked=0, newest=9, share=False):
        return self.add(do='joined', topic='fsync.a', by=by, session=session, durable=durable, epoch='e', offset=newest,
                        acked=acked, pending=0, share=share)

    def given(self, offset, label, by='c0', session=1, durable='each', tries=1):
        return self.add(do='given', topic='fsync.a', by=by, session=session, durable=durable, offset=offset,
                        label=label, tries=tries)

    def ack(self, offset, outcome='done', by='c0', session=1, durable='each', count=1):
        number = len(self.events)
        self.add(do='ack', topic='fsync.a', by=by, session=session, durable=durable, id=number, offset=offset,
                 outcome=outcome)
        if count is None:
            return self
        return self.add(do='acked', topic='fsync.a', by=by, session=session, durable=durable, id=number, count=count)

    def parted(self, by='c0', session=1, durable='each', drained=True):
        return self.add(do='parted', topic='fsync.a', by=by, session=session, durable=durable, drained=drained)

    def killed(self):
        return self.add(do='killed').add(do='started')

    def read(self, *records, epoch='e', topic='fsync.a', **more):
        newest = more.pop('newest', max((offset for offset, _ in records), default=0))
        return self.add(do='read', topic=topic, epoch=epoch, newest=newest, records=list(records), **more)


TOPICS = {'fsync.a': Topic('fsync'), 'os.a': Topic('os'), 'memory.a': Topic('memory'), 'fsync.few': Topic('fsync', 2)}


class Rules(unittest.TestCase):
    def judge(self, history, failure='kill'):
        return Checker(TOPICS, failure).judge(history.events)

    def holds(self, history, failure='kill'):
        self.assertEqual(self.judge(history, failure), [])

    def breaks(self, rule, history, failure='kill'):
        wrong = self.judge(history, failure)
        self.assertTrue(any(line.startswith(f'{rule}: ') for line in wrong), wrong or 'nothing was found')

    def test_1_what_was_acknowledged_is_read_back(self):
        self.holds(History().stored('a', 1).stored('b', 2).killed().read((1, 'a'), (2, 'b')))
        self.breaks(1, History().stored('a', 1).stored('b', 2).killed().read((1, 'a')))
        self.breaks(1, History().stored('a', 1).killed().read())
        self.breaks(1, History().stored('a', 1).killed().read(epoch='of no topic'))
        # An `os` topic with a new epoch after a loss of power has told that it lost something.
        os = dict(topic='os.a', stored='os')
        lost = History().stored('a', 1, **os).stored('b', 2, **os).killed()
        self.holds(lost.read((1, 'a'), epoch='e.1', topic='os.a'), 'power')
        lost = History().stored('a', 1, **os).stored('b', 2, **os).killed()
        self.breaks(1, lost.read((1, 'a'), topic='os.a'), 'power')

    def test_1_the_level_is_told(self):
        self.breaks(1, History().stored('a', 1, stored='os'))
        self.holds(History().stored('a', 1, topic='memory.a', stored=None))

    def test_1_retention_may_take_the_oldest(self):
        few = dict(topic='fsync.few')
        three = History().stored('a', 1, **few).stored('b', 2, **few).stored('c', 3, **few).killed()
        self.holds(three.read((2, 'b'), (3, 'c'), backwards=[(2, 'b'), (3, 'c')], **few))
        three = History().stored('a', 1, **few).stored('b', 2, **few).stored('c', 3, **few).killed()
        self.breaks(1, three.read((3, 'c'), backwards=[(3, 'c')], **few))

    def test_1_damage_has_to_be_told(self):
        two = History().stored('a', 1).stored('b', 2)
        self.holds(two.read((2, 'b'), gaps=[(1, 1)], replayed=[(2, 'b')]), 'rot')
        two = History().stored('a', 1).stored('b', 2)
        self.breaks(1, two.read((2, 'b'), gaps=[], replayed=[(2, 'b')]), 'rot')

    def test_2_an_offset_has_one_content(self):
        self.breaks(2, History().stored('a', 1).publish('b').killed().read((1, 'b')))
        self.breaks(2, History().publish('a').subscribed(0).message(1, 'WRONG a:xy'))
        self.breaks(2, History().subscribed(0).message(1, 'never sent'))

    def test_2_a_content_has_one_offset(self):
        self.breaks(2, History().stored('a', 1).killed().read((1, 'a'), (2, 'a')))

    def test_2_a_memory_topic_forgets_keys_with_its_epoch(self):
        memory = dict(topic='memory.a', stored=None)
        once = History().publish('b', topic='memory.a').publish('a', key=True, topic='memory.a').ok('a', 2, **memory)
        self.holds(once.killed().publish('a', key=True, topic='memory.a').ok('a', 1, epoch='f', **memory))

    def test_2_the_history_is_the_same_both_ways(self):
        two = History().stored('a', 1).stored('b', 2)
        self.breaks(2, two.read((1, 'a'), (2, 'b'), backwards=[(2, 'b')]))

    def test_3_offsets_follow_the_order_of_publishing(self):
        self.holds(History().publish('a').publish('b').ok('a', 1).ok('b', 2))
        self.breaks(3, History().publish('a').publish('b').ok('a', 2).ok('b', 1))
        self.breaks(3, History().stored('a', 2).publish('b', by='p1').ok('b', 1, by='p1'))

    def test_4_a_subscriber_sees_no_holes(self):
        three = [('a', 1), ('b', 2), ('c', 3)]
        def stored():
            history = History()
            for label, offset in three:
                history.stored(label, offset)
            return history
        self.holds(stored().subscribed(3, dict(epoch='e', offset=0), True).message(1, 'a').message(2, 'b'))
        self.breaks(4, stored().subscribed(3, dict(epoch='e', offset=0), True).message(1, 'a').message(3, 'c'))
        self.breaks(4, stored().subscribed(3, dict(epoch='e', offset=0), True).message(2, 'b'))
        self.breaks(4, stored().subscribed(3, dict(epoch='e', offset=1), True).message(2, 'b').message(2, 'b'))
        self.holds(stored().subscribed(3, dict(epoch='e', offset=0), True).gap(1, 2).message(3, 'c'))
        # What only a later read shows was missing as well.
        unknown = History().publish('a').stored('b', 2).subscribed(2, dict(epoch='e', offset=0), True)
        self.breaks(4, unknown.message(2, 'b').read((1, 'a'), (2, 'b')))

    def test_4_a_position_of_this_epoch_is_recovered(self):
        self.breaks(4, History().stored('a', 1).killed().subscribed(1, dict(epoch='e', offset=1), False))
        self.breaks(4, History().stored('a', 1).subscribed(1, dict(epoch='other', offset=1), True))

    def test_4_all_arrives_in_the_end(self):
        self.breaks(4, History().subscribed(0).stored('a', 1).add(do='left', by='s0', session=1, drained=True))
        self.breaks(4, History().stored('a', 1).read((1, 'a'), replayed=[], gaps=[]))

    def test_5_what_was_delivered_is_read_back(self):
        seen = History().publish('a').subscribed(0).message(1, 'a').killed()
        self.breaks(5, seen.read())
        seen = History().publish('a').subscribed(0).message(1, 'a').killed()
        self.holds(seen.read((1, 'a')))

    def test_6_what_is_gone_does_not_come_back(self):
        self.breaks(6, History().publish('a').killed().read().read((1, 'a')))
        self.breaks(6, History().publish('a').killed().read().subscribed(0).message(1, 'a'))
        self.holds(History().publish('a', key=True).killed().read().publish('a', key=True).read((1, 'a')))

    def test_7_a_key_adds_one_message(self):
        twice = History().publish('a', key=True).killed().publish('a', key=True)
        self.holds(twice.ok('a', 1, duplicate=True).read((1, 'a')))
        self.breaks(7, History().publish('a', key=True).ok('a', 1).publish('a', key=True).ok('a', 1))
        self.breaks(7, History().publish('a', key=True).ok('a', 1, duplicate=True))
        self.breaks(2, History().publish('a', key=True).ok('a', 1).publish('a', key=True).ok('a', 2, duplicate=True))

    def test_8_a_durable_topic_keeps_its_epoch(self):
        self.breaks(8, History().stored('a', 1).killed().read((1, 'a'), epoch='f'))
        self.breaks(8, History().stored('a', 1).killed().read((1, 'a'), epoch='f'), 'power')
        os = dict(topic='os.a', stored='os')
        self.breaks(8, History().stored('a', 1, **os).killed().read((1, 'a'), epoch='f', topic='os.a'))
        self.holds(History().stored('a', 1, **os).killed().read((1, 'a'), epoch='f', topic='os.a'), 'power')
        memory = dict(topic='memory.a', stored=None)
        self.holds(History().stored('a', 1, **memory).killed().stored('b', 1, epoch='f', **memory))
        self.breaks(2, History().stored('a', 1, **memory).killed().stored('b', 1, **memory))

    def test_10_an_unknown_publish_adds_at_most_one(self):
        lost = History().publish('a').add(do='unknown', label='a', topic='fsync.a').killed()
        self.holds(lost.read((1, 'a')))
        lost = History().publish('a').add(do='refused', label='a', topic='fsync.a').killed()
        self.breaks(2, lost.read((1, 'a'), (2, 'a')))

    def test_9_what_was_acknowledged_is_not_given_again(self):
        one = History().stored('a', 1).joined()
        self.holds(one.given(1, 'a').ack(1).killed().joined(session=2, acked=1).parted(session=2))
        self.breaks(9, History().stored('a', 1).joined().given(1, 'a').ack(1).killed().given(1, 'a', session=2))
        # An acknowledgement without a confirmation may have been lost.
        lost = History().stored('a', 1).joined().given(1, 'a').ack(1, count=None).killed()
        self.holds(lost.joined(session=2).given(1, 'a', session=2).ack(1, session=2))

    def test_9_what_was_not_acknowledged_is_given_again(self):
        self.breaks(9, History().stored('a', 1).joined().parted())
        self.breaks(9, History().stored('a', 1).joined().given(1, 'a').parted())
        self.breaks(9, History().stored('a', 1).joined().given(1, 'a').ack(1, 'retry').parted())
        again = History().stored('a', 1).joined().given(1, 'a').ack(1, 'retry').given(1, 'a', tries=2)
        self.holds(again.ack(1).parted())

    def test_9_tries_count_up(self):
        self.breaks(9, History().stored('a', 1).joined().given(1, 'a').ack(1, 'retry').given(1, 'a'))

    def test_9_no_two_members_have_one_message(self):
        def one():
            return History().stored('a', 1).joined(durable='group', share=True)
        both = one().given(1, 'a', durable='group').given(1, 'a', by='c1', durable='group', tries=2)
        both.events[-1]['at'] = both.events[-2]['at'] + 0.1
        self.breaks(9, both)
        after = one().given(1, 'a', durable='group').parted(durable='group', drained=False)
        after.given(1, 'a', by='c1', durable='group', tries=2)
        after.events[-1]['at'] = after.events[-2]['at'] + 0.1
        self.holds(after)

    def test_9_at_most_so_many_are_out_at_once(self):
        many = History().joined(newest=21)
        for offset in range(1, 22):
            many.given(offset, str(offset))
            many.events[-1]['at'] = 1 + offset / 1000
        self.breaks(9, many)

    def test_9_an_acknowledgement_is_never_ahead_of_the_log(self):
        self.breaks(9, History().joined(acked=3, newest=2))

    def test_9_dead_letters_are_the_rejected(self):
        def one():
            return History().stored('a', 1).joined().given(1, 'a').ack(1, 'reject')
        self.holds(one().read((1, 'a'), topic='fsync.dead'))
        self.breaks(9, one().read(topic='fsync.dead'))
        self.breaks(9, one().read((1, 'a'), (2, 'a'), topic='fsync.dead'))
        self.breaks(9, one().read((1, 'a'), (2, 'b'), topic='fsync.dead'))


if __name__ == '__main__':
    unittest.main()

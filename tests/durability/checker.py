"""Judges a history of publishers, subscribers and readers, by the ten rules below.

A history is a list of events, each a dict with `do` and `at` (seconds, when the client began to send or had received).
`Checker(topics, failure).judge(events)` returns what is wrong, as sentences that begin with the number of the rule:

 1. Every message that was acknowledged is read back at its offset while its topic has the same epoch.
 2. No offset has two contents and no content has two offsets, in any life of the server; no content is altered.
 3. Offsets follow the order of publishing: of one publisher, and of publishes of which one was acknowledged first.
 4. A subscriber sees ascending offsets, without holes other than those that a `gap` names; after `recovered` it sees
    all that came after its position. A position of an epoch that is still the topic's is recovered.
 5. What was delivered is read back as well.
 6. What a read did not find after a restart is not there later.
 7. A key adds one message; `duplicate` is only said of a publish that was repeated.
 8. A durable topic has the same epoch after a kill; after a loss of power if its level is `fsync`.
 9. Of a durable consumer: what was acknowledged is not delivered again, what was not is; at most `max_in_flight` are
    out at once; no two members hold one message; tries count up.
10. A publish that failed, or of which nothing is known, adds at most one message.

Rules 7 and 10 follow from 2 as far as they forbid a second message: contents are unique.
"""
import bisect
import itertools
from collections import defaultdict
from dataclasses import dataclass, field

import consumers


DEAD_LETTERS = 'fsync.dead'


@dataclass
class Topic:
    """What a topic promises: `memory`, `os` or `fsync`, and how many messages it keeps, if it has a bound."""
    level: str
    keep: int | None = None


@dataclass
class Session:
    """What one subscription of one connection received."""
    epoch: str | None = None
    newest: int | None = None
    since: dict | None = None
    recovered: bool | None = None
    # ('message', offset, label, at) and ('gap', first, last, at), in the order in which they came.
    received: list = field(default_factory=list)
    # When it ended because nothing more came.
    drained_at: float | None = None


class Checker:
    def __init__(self, topics, failure='kill'):
        """`topics` maps names to `Topic`s. `failure` is `kill`, `power` or `rot` (files were damaged)."""
        self.topics, self.failure, self.wrong = topics, failure, []
        self.contents = {}                      # (topic, epoch, offset) -> label
        self.places = defaultdict(set)          # (topic, label) -> {(epoch, offset)}
        self.kept = defaultdict(dict)           # (topic, epoch) -> {offset: (label, first time seen, rule)}
        self.published = {}                     # (topic, label) -> [times of invocation, has a key, publisher, session]
        self.sessions = defaultdict(Session)    # (client, session, topic)

    def fail(self, rule, what):
        self.wrong.append(f'{rule}: {what}')

    def survives(self, topic):
        """Whether the topic outlives the failure with its epoch."""
        level = self.topics[topic].level
        return level == 'fsync' or level == 'os' and self.failure == 'kill'

    def seen(self, topic, epoch, offset, label, at, rule):
        """Notes that a message is at an offset, as an acknowledgement (rule 1) or a delivery (5) said."""
        if label.startswith('WRONG'):
            return self.fail(2, f'{topic} {offset} was altered: {label}')
        place = (topic, epoch, offset)
        other = self.contents.setdefault(place, label)
        if other != label:
            self.fail(2, f'{topic} {epoch} {offset} is {other} and {label}')
        places = self.places[topic, label]
        # A durable topic with a new epoch keeps the offsets of what is left; in memory, keys and offsets begin again.
        is_durable = self.topics[topic].level != 'memory'
        if any(found != offset and (is_durable or known == epoch) for known, found in places):
            self.fail(2, f'{topic} {label} is at {offset} and at {sorted(found for _, found in places)}')
        places.add((epoch, offset))
        if (topic, label) not in self.published:
            self.fail(2, f'{topic} {offset} has {label}, which was never published there')
        if rule:
            self.kept[topic, epoch].setdefault(offset, (label, at, rule))

    def judge(self, events):
        events = sorted(events, key=lambda event: event['at'])
        reads, kills, epochs = [], [], defaultdict(list)
        highest = defaultdict(int)              # (topic, epoch) -> the highest offset that was acknowledged so far
        at_invocation = {}                      # (topic, label) -> the same at its first invocation
        acknowledged = defaultdict(list)        # (publisher, session, topic) -> [(place in the order of sending, offset)]
        order, oks = {}, defaultdict(list)
        turns = itertools.count()
        for event in events:
            do, at, topic = event['do'], event['at'], event.get('topic')
            if do in ('killed', 'started'):
                kills.append((do, at))
                continue
            if topic not in self.topics:
                continue
            label = event.get('label')
            if do == 'publish':
                known = self.published.get((topic, label))
                if known:
                    known[0].append(at)
                    if not known[1]:
                        self.fail(10, f'{topic} {label} was repeated without a key: a fault of the test')
                else:
                    self.published[topic, label] = [[at], event['key'], event['by'], event['session']]
                    at_invocation[topic, label] = dict((key[1], top) for key, top in highest.items() if key[0] == topic)
                order[topic, label, event['session']] = next(turns)
            elif do == 'ok':
                epoch, offset = event['epoch'], event['offset']
                self.seen(topic, epoch, offset, label, at, 1)
                epochs[topic].append((at, epoch))
                expected = None if self.topics[topic].level == 'memory' else self.topics[topic].level
                if event.get('stored') != expected:
                    self.fail(1, f'{topic} {label}: stored is {event.get("stored")}, not {expected}')
                oks[topic, label].append(event)
                if event.get('duplicate'):
                    if len(self.published.get((topic, label), [[]])[0]) < 2:
                        self.fail(7, f'{topic} {label} was published once and is called a duplicate')
                else:
                    if sum(not ok.get('duplicate') and ok['epoch'] == epoch for ok in oks[topic, label]) > 1:
                        self.fail(7, f'{topic} {label} was stored twice')
                    below = at_invocation.get((topic, label), {}).get(epoch, 0)
                    if offset <= below:
                        self.fail(3, f'{topic} {label} got {offset}, and {below} was acknowledged before it was sent')
                    place = order.get((topic, label, event['session']))
                    acknowledged[event['by'], event['session'], topic, epoch].append((place, offset))
                highest[topic, epoch] = max(highest[topic, epoch], offset)
            elif do == 'subscribe':
                self.sessions[event['by'], event['session'], topic].since = event['since']
            elif do == 'subscribed':
                session = self.sessions[event['by'], event['session'], topic]
                session.epoch, session.newest = event['epoch'], event['offset']
                session.recovered = event['recovered']
                epochs[topic].append((at, event['epoch']))
            elif do == 'message':
                self.sessions[event['by'], event['session'], topic].received.append(('message', event['offset'], label, at))
            elif do == 'gap':
                entry = ('gap', event['first'], event['last'], at)
                self.sessions[event['by'], event['session'], topic].received.append(entry)
            elif do == 'read':
                reads.append(event)
                # A topic that does not exist has no epoch of its own.
                if event['newest']:
                    epochs[topic].append((at, event['epoch']))
        for event in events:
            if event['do'] == 'left' and event['drained']:
                for topic in self.topics:
                    if (event['by'], event['session'], topic) in self.sessions:
                        self.sessions[event['by'], event['session'], topic].drained_at = event['at']
        # Deliveries name no epoch: it is the one of their subscription.
        for (by, number, topic), session in self.sessions.items():
            for entry in session.received:
                if entry[0] == 'message' and session.epoch:
                    self.seen(topic, session.epoch, entry[1], entry[2], entry[3], 5)
        for read in reads:
            for offset, label in read['records']:
                self.seen(read['topic'], read['epoch'], offset, label, read['at'], None)
        for (by, _, topic, _), answered in acknowledged.items():
            offsets = [offset for _, offset in sorted(answered)]
            if offsets != sorted(offsets):
                self.fail(3, f'{topic}: the publishes of {by} are not in the order in which it sent them')
        self.check_epochs(epochs, kills)
        self.check_sessions(kills)
        self.check_reads(reads, kills)
        self.check_resurrection(reads, kills)
        dead_letters = [event['records'] for event in events if event['do'] == 'read' and event['topic'] == DEAD_LETTERS]
        consumers.check(self, events, dead_letters[-1] if dead_letters else None)
        return self.wrong

    def check_epochs(self, epochs, kills):
        for topic, named in epochs.items():
            distinct = list(dict.fromkeys(epoch for _, epoch in sorted(named, key=lambda pair: pair[0])))
            if len(distinct) > 1 and self.survives(topic) and self.failure != 'rot':
                self.fail(8, f'{topic} had the epochs {distinct}')

    def check_sessions(self, kills):
        known = defaultdict(list)
        for topic, epoch, offset in self.contents:
            known[topic, epoch].append(offset)
        for offsets in known.values():
            offsets.sort()
        for (by, number, topic), session in self.sessions.items():
            name = f'{topic}, {by} in session {number}'
            received, since = session.received, session.since
            if session.epoch is None:
                continue
            offsets = known[topic, session.epoch]
            below = None                        # the offset behind which everything is expected
            if since and session.recovered:
                if since['epoch'] != session.epoch:
                    self.fail(4, f'{name}: recovered, and the epoch became another one')
                below = since['offset']
            elif not since:
                below = session.newest
            elif since['epoch'] == session.epoch and not self.topics[topic].keep and self.failure != 'rot':
                self.fail(4, f'{name}: not recovered, though its position is of this epoch')
            last = below
            for kind, first, second, _ in received:
                if last is not None and first <= last:
                    self.fail(4, f'{name}: {kind} {first} after {last}')
                    last = None
                    break
                if kind == 'message' and last is not None:
                    self.expect_nothing(name, offsets, last, first)
                elif kind == 'gap' and last is not None:
                    self.expect_nothing(name, offsets, last, first)
                last = second if kind == 'gap' else first
            if session.drained_at and last is not None:
                kept = self.kept.get((topic, session.epoch), {})
                newest = max((offset for offset, (_, at, _) in kept.items() if at < session.drained_at), default=0)
                if newest > last:
                    self.fail(4, f'{name}: ends at {last}, and {newest} was there')

    def expect_nothing(self, name, offsets, low, high):
        """No known offset lies between two that came one after the other."""
        place = bisect.bisect_right(offsets, low)
        if place < len(offsets) and offsets[place] < high:
            self.fail(4, f'{name}: {offsets[place]} is missing between {low} and {high}')

    def check_reads(self, reads, kills):
        for read in reads:
            topic, epoch = read['topic'], read['epoch']
            found = {offset: label for offset, label in read['records']}
            if [offset for offset, _ in read['records']] != sorted(found):
                self.fail(2, f'{topic}: history is not in ascending order')
            replayed = {offset: label for offset, label in read.get('replayed', [])}
            gaps = [tuple(gap) for gap in read.get('gaps', [])]
            keep, newest = self.topics[topic].keep, read['newest'] or 0
            if not newest and self.survives(topic) and self.failure != 'rot':
                for (other, _), kept in self.kept.items():
                    if other == topic and any(at < read['at'] for _, at, _ in kept.values()):
                        self.fail(1, f'{topic} is gone, with all that was acknowledged')
            # While clients publish, messages may go between the look at the newest and the read of the oldest.
            trimmed = newest - keep + (0 if 'backwards' in read else keep // 2) if keep else 0
            for offset, (label, at, rule) in self.kept.get((topic, epoch), {}).items():
                if at >= read['at'] or offset <= trimmed:
                    continue
                is_told = any(first <= offset <= last for first, last in gaps)
                what = 'acknowledged' if rule == 1 else 'delivered'
                if found.get(offset) != label and not (self.failure == 'rot' and is_told):
                    self.fail(rule, f'{topic} {offset} {label} was {what} and is lost (newest {newest})')
                elif not keep and 'replayed' in read and replayed.get(offset) != label and not is_told:
                    self.fail(4, f'{topic} {offset} {label} is in the history and not in a replay')
            if 'backwards' in read and read['backwards'] != read['records']:
                self.fail(2, f'{topic}: the history differs forwards and backwards')

    def check_resurrection(self, reads, kills):
        """What was sent before a kill and is not in the first read after it stays away, unless it is sent again."""
        killed = sorted(at for do, at in kills if do == 'killed')
        absent = {}                             # (topic, label) -> when it was found to be absent
        by_topic = defaultdict(list)
        for topic, label in self.published:
            by_topic[topic].append(label)
        if self.failure == 'rot':
            return
        for read in reads:
            topic = read['topic']
            found = {label for _, label in read['records']}
            for label in found:
                since = absent.get((topic, label))
                if since is not None and not any(since < at for at in self.published.get((topic, label), [[]])[0]):
                    self.fail(6, f'{topic} {label} was absent after a restart and came back')
            place = bisect.bisect_left(killed, read['at']) - 1
            if place >= 0 and self.topics[topic].level != 'memory':
                for label in by_topic[topic]:
                    if label not in found and self.published[topic, label][0][-1] < killed[place]:
                        absent.setdefault((topic, label), read['at'])
        for (by, number, topic), session in self.sessions.items():
            if self.topics[topic].keep:
                continue
            for kind, offset, label, at in session.received:
                since = absent.get((topic, label)) if kind == 'message' else None
                if since is not None and at > since and not any(
                        since < sent for sent in self.published[topic, label][0]):
                    self.fail(6, f'{topic} {label} was absent after a restart and was delivered to {by}')

"""Rule 9 of the checker: what durable consumers were given, and what they acknowledged."""
from collections import Counter, defaultdict
from dataclasses import dataclass, field

ACK_WAIT = 1.0
MAX_IN_FLIGHT = 20


@dataclass
class Consumer:
    """One durable consumer of a topic, over all its members and sessions."""
    epoch: str | None = None
    start: int | None = None                    # the floor when it was first joined
    is_shared: bool = False
    is_upto: bool = False
    given: dict = field(default_factory=lambda: defaultdict(list))  # offset -> [(at, member, session, tries)]
    settled: set = field(default_factory=set)   # offsets that some member said is done or rejected
    confirmed: dict = field(default_factory=dict)   # offset -> when `ok` came
    rejected: Counter = field(default_factory=Counter)
    rejections: set = field(default_factory=set)    # offsets whose rejection was confirmed
    missed: list = field(default_factory=list)
    held: dict = field(default_factory=dict)    # (member, session) -> {offset: (at, label)}
    waiting: dict = field(default_factory=dict)     # (member, session, id) -> (offset, outcome, what else it covers)
    drained_at: float | None = None


def check(checker, events, dead_letters):
    """`checker` has the messages of all topics and takes what is wrong. `dead_letters` names the topic of the rejected."""
    consumers, labels, last_kill = defaultdict(Consumer), {}, float('-inf')
    for event in sorted(events, key=lambda event: event['at']):
        if event['do'] == 'killed':
            # Nothing is held by connections that have ended.
            last_kill = event['at']
            for consumer in consumers.values():
                consumer.held.clear()
        if 'durable' not in event:
            continue
        name = (event['topic'], event['durable'])
        consumer, by, at = consumers[name], (event['by'], event['session']), event['at']
        title = f'{name[1]} of {name[0]}'
        do = event['do']
        if do == 'joined':
            joined(checker, consumer, event, title)
        elif do == 'given':
            offset = event['offset']
            labels[event['topic'], offset] = event['label']
            if event['label'].startswith('WRONG'):
                checker.fail(2, f'{title} {offset} was altered: {event["label"]}')
            given(checker, consumer, event, title, by, last_kill)
        elif do == 'ack':
            offset, outcome = event['offset'], event['outcome']
            held = consumer.held.get(by, {})
            # With `upto` all before are covered, and with `retry` they and all after are given again.
            covered = [other for other in held if consumer.is_upto and (other <= offset or outcome == 'retry')] + [offset]
            for other in covered:
                held.pop(other, None)
            consumer.waiting[(*by, event['id'])] = (covered, outcome)
            if outcome != 'retry':
                consumer.settled.update(covered)
            if outcome == 'reject':
                consumer.rejected[offset] += 1
        elif do == 'acked':
            covered, outcome = consumer.waiting.pop((*by, event['id']), ([], ''))
            if event['count'] and outcome in ('done', 'reject'):
                sure = covered if event['count'] >= len(covered) else covered[-1:]
                for other in sure:
                    consumer.confirmed.setdefault(other, at)
                if outcome == 'reject':
                    consumer.rejections.update(covered)
        elif do == 'missed':
            consumer.missed.append((event['first'], event['last']))
        elif do in ('parted', 'unsubscribed'):
            consumer.held.pop(by, None)
            if event.get('drained'):
                consumer.drained_at = at
        elif do == 'error':
            checker.fail(9, f'{title}: {event["code"]} {event["message"]}')
    for (topic, durable), consumer in consumers.items():
        finished(checker, consumer, topic, f'{durable} of {topic}')
    check_dead_letters(checker, consumers, labels, dead_letters)


def joined(checker, consumer, event, title):
    if event['acked'] > event['offset']:
        checker.fail(9, f'{title}: {event["acked"]} is acknowledged, and the newest message is {event["offset"]}')
    if consumer.start is None:
        consumer.epoch, consumer.start, consumer.is_shared = event['epoch'], event['acked'], event['share']
        consumer.is_upto = event['durable'] == 'upto'
    elif event['epoch'] != consumer.epoch:
        consumer.epoch = None                   # rule 8 says whether this may happen


def given(checker, consumer, event, title, by, last_kill):
    offset, at, tries = event['offset'], event['at'], event['tries']
    confirmed = consumer.confirmed.get(offset)
    # What was on its way when the acknowledgement came may arrive a little later, but not seconds.
    if confirmed is not None and at > confirmed + (ACK_WAIT / 2 if consumer.is_upto else 0):
        checker.fail(9, f'{title}: {offset} was acknowledged {at - confirmed:.3f} s ago and was given again')
    for other, held in consumer.held.items():
        for offset_held, since in list(held.items()):
            if at > since + ACK_WAIT / 2:
                del held[offset_held]
        if consumer.is_shared and other != by and offset in held:
            checker.fail(9, f'{title}: {offset} was given to {by[0]} while {other[0]} had it')
    earlier = [entry for entry in consumer.given[offset] if entry[0] > last_kill]
    if earlier and tries <= earlier[-1][3]:
        checker.fail(9, f'{title}: {offset} was given for the {tries}th time after the {earlier[-1][3]}th')
    consumer.given[offset].append((at, *by, tries))
    consumer.held.setdefault(by, {})[offset] = at
    in_flight = sum(len(held) for held in consumer.held.values())
    if in_flight > MAX_IN_FLIGHT:
        checker.fail(9, f'{title}: {in_flight} messages were out at once')


def finished(checker, consumer, topic, title):
    """Once nothing more comes, each message has been acknowledged."""
    if consumer.drained_at is None or consumer.epoch is None or consumer.start is None:
        return
    for offset, (label, at, _) in checker.kept.get((topic, consumer.epoch), {}).items():
        is_missed = any(first <= offset <= last for first, last in consumer.missed)
        if offset > consumer.start and at < consumer.drained_at and offset not in consumer.settled and not is_missed:
            what = 'given and not acknowledged' if offset in consumer.given else 'never given'
            checker.fail(9, f'{title}: {offset} {label} was {what}')


def check_dead_letters(checker, consumers, labels, dead_letters):
    """Each confirmed rejection is among the dead letters, once for each consumer, and nothing else is."""
    if dead_letters is None:
        return
    least, most = Counter(), Counter()
    for (topic, _), consumer in consumers.items():
        for offset in consumer.rejections:
            least[labels[topic, offset]] += 1
        for offset, times in consumer.rejected.items():
            most[labels[topic, offset]] += times
    found = Counter(label for _, label in dead_letters)
    for label in least.keys() | found.keys():
        if not least[label] <= found[label] <= most[label]:
            checker.fail(9, f'{label} is {found[label]} times among the dead letters, and was rejected '
                            f'{least[label]} to {most[label]} times')

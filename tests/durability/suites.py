#!/usr/bin/env python3
"""Kills, losses of power, a full disk, errors of the system and damaged files against the server's binary.

    cargo build --release --bin quic-websocket --example durability_load
    tests/durability/suites.py kill 200

`./run.sh durability SUITE [COUNT]` does both. Each suite starts the server, lets publishers and subscribers record a
history (`load/`), causes failures, reads everything back and lets `checker.py` judge. docs/DURABILITY.md names the
suites and their results.
"""
import argparse
import collections
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import powercut
from checker import Checker
from programs import TOPICS, Bed, count

# Faults that a suite has to find, without a build of their own: a topic that promises one level and has another, or
# syncs that are taken out of the recording.
LEVELS = {'early-ack': {'fsync': 'os'}, 'memory-only': {'os': 'memory', 'fsync': 'memory'}}
SYNCS = {'no-fsync': 'fsync', 'no-dir-fsync': 'dir-fsync'}

# Kills of one store. With more of them the history grows, and with it the time to read it back.
LIVES = 10


class Report:
    """Counts what happened, and shows the first faults of each kind."""
    def __init__(self, suite, fault):
        self.suite, self.fault, self.figures, self.bad, self.shown = suite, fault, collections.Counter(), 0, []
        self.is_bed_bad = False

    def judge(self, bed, failure, events=None, what=''):
        events = bed.events if events is None else events
        if self.fault in LEVELS:                # the fault is what happens, not what is said
            events = [dict(event, stored=TOPICS[event['topic']].level) if event['do'] == 'ok'
                      and TOPICS[event['topic']].level != 'memory' else event for event in events]
        self.found(Checker(TOPICS, failure).judge(events), what)

    def found(self, wrong, what=''):
        if wrong:
            self.bad += 1
            self.is_bed_bad = True
            self.shown += [f'{what}: {line}' for line in wrong[:3]]

    def add(self, events):
        for do in ('ok', 'unknown', 'refused', 'message', 'subscribed', 'gap'):
            self.figures[do] += count(events, do)
        for event in events:
            if event['do'] in ('error', 'unsubscribed', 'close') or event['do'] == 'refused' and event['code'] != 503:
                self.found([f'unexpected {event}'])

    def end(self, figures):
        for line in self.shown[:12]:
            print('  ', line[:400])
        names = {'ok': 'acknowledged', 'message': 'delivered', 'subscribed': 'subscriptions', 'gap': 'gaps'}
        counted = ', '.join(f'{number:,} {names.get(do, do)}' for do, number in self.figures.items() if number)
        planted = f' with the fault {self.fault}' if self.fault else ''
        print(f'{self.suite}{planted}: {figures}; {counted}; {self.bad} times wrong')
        # A planted fault has to be found.
        return (self.bad == 0) if self.fault else (self.bad > 0)


def kill(options, report):
    """kill -9 at random moments, and at the points that the server names if it was built with them."""
    kills = 0
    while kills < options.count:
        bed = Bed(options, LEVELS.get(options.fault))
        try:
            bed.start()
            bed.publish('--pause-ms', '20')
            for _ in range(min(LIVES, options.count - kills)):
                time.sleep(random.uniform(0.1, 0.8))
                bed.kill()
                kills += 1
                bed.start()
                bed.read()
            time.sleep(0.2)
            bed.settle()
            bed.read('--both-ways')
        finally:
            bed.end()
        report.add(bed.events)
        report.judge(bed, 'kill', what=f'{kills} kills')
        keep_or_remove(bed, report)
    return f'{kills} kills'


def other_boot(bed):
    """Around a command: the machine looks as if it had been started again, which the store asks the system for."""
    path = bed.base + '/boot_id'
    with open(path, 'w') as file:
        digits = f'{random.getrandbits(128):032x}'
        file.write('-'.join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:])) + '\n')
    return ['unshare', '-rm', 'sh', '-c', 'mount --bind "$0" /proc/sys/kernel/random/boot_id && exec "$@"', path]


def power(options, report):
    """Loss of power, by images of what the disk may have had."""
    rng, images = random.Random(options.seed), 0
    while images < options.count:
        bed = Bed(options, LEVELS.get(options.fault))
        os.mkdir(bed.store)
        try:
            if rng.random() < 0.5:              # a store with a life before
                bed.start()
                bed.publish()
                time.sleep(0.3)
                bed.settle()
                bed.kill(rng.choice([signal.SIGKILL, signal.SIGTERM]))
            disk = powercut.Disk(bed.store, SYNCS.get(options.fault))
            bed.start(around=powercut.command(bed.base + '/trace'))
            bed.publish('--pause-ms', '20', '--largest', '1000')
            time.sleep(rng.uniform(0.3, 0.8))
            bed.settle()
            bed.kill(rng.choice([signal.SIGKILL, signal.SIGTERM]))
            disk.load(bed.base + '/trace')
            report.add(bed.events)
            history = bed.events
            for moment in disk.moments(rng, min(options.batch, options.count - images)):
                disk.image(moment, bed.base + '/image', rng)
                images += 1
                bed.events = [event for event in history if event['at'] <= moment]
                bed.events.append({'do': 'killed', 'at': moment})
                around = other_boot(bed)
                if not bed.start(bed.base + '/image', around, must=False):
                    report.figures['refused to start'] += 1
                    report.found([f'the server did not start: {bed.log()[-300:]}'], f'image {images}')
                    continue
                if rng.random() < 0.1:          # killed right after its recovery
                    bed.kill()
                    bed.start(bed.base + '/image', around)
                bed.read()
                bed.kill()
                report.judge(bed, 'power', what=f'image {images}, seed {options.seed}')
        finally:
            bed.end()
        keep_or_remove(bed, report)
    return f'{images} losses of power'


def full(options, report):
    """A file system of 64 MiB that another file fills and leaves again, several times."""
    if os.environ.get('DURABILITY_INSIDE') != '1':
        # The file system is mounted in a namespace of its own, which needs no rights and leaves nothing behind.
        command = ['unshare', '-rm', sys.executable, *sys.argv]
        sys.exit(subprocess.run(command, env=dict(os.environ, DURABILITY_INSIDE='1')).returncode)
    bed = Bed(options)
    disk = bed.base + '/disk'
    os.mkdir(disk)
    subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=64m', 'none', disk], check=True)
    bed.store = disk + '/store'
    times = []
    try:
        bed.start()
        bed.publish('--pause-ms', '20')
        for _ in range(options.count):
            time.sleep(1.5)
            begun = time.time()
            with open(disk + '/filler', 'wb') as filler:
                while True:
                    try:
                        filler.write(bytes(1 << 20))
                        filler.flush()
                    except OSError:
                        break
            time.sleep(3)
            freed = time.time()
            os.unlink(disk + '/filler')
            time.sleep(3)
            times.append((begun, freed, time.time()))
        bed.settle()
        bed.read('--both-ways')
        bed.kill()
        bed.start()
        bed.read('--both-ways')
    finally:
        bed.end()
    report.add(bed.events)
    report.judge(bed, 'kill')
    for begun, freed, end in times:
        def happened(do, first, last, durable):
            return sum(event['do'] == do and first < event['at'] < last
                       and (TOPICS[event['topic']].level != 'memory') == durable for event in bed.events)
        refused, again = happened('refused', begun, freed, True), happened('ok', freed + 1, end, True)
        memory = happened('ok', begun, freed, False)
        print(f'   full for {freed - begun:.1f} s: {refused} durable publishes refused, {memory} of memory topics stored;'
              f' {again} durable ones stored from a second after there was room')
        report.found([what for what, holds in [
            ('no durable publish was refused while the disk was full', refused > 0),
            ('memory topics noticed that the disk was full', memory > 0 and not happened('refused', begun, end, False)),
            ('nothing was stored after there was room again', again > 0),
        ] if not holds])
    subprocess.run(['umount', '--lazy', disk], check=True)
    keep_or_remove(bed, report)
    return f'{len(times)} times full'


def inject(options, report):
    """Errors of the system at a random call, once or from then on."""
    if not shutil.which('strace'):
        print('strace is not installed: the suite inject was left out')
        sys.exit(0)
    rng, kinds = random.Random(options.seed), collections.Counter()
    for run in range(options.count):
        bed = Bed(options)
        calls = rng.choice(['fdatasync,fsync', 'pwrite64,pwritev,pwritev2', 'fallocate,ftruncate', 'openat'])
        error = rng.choice(['EIO', 'ENOSPC'])
        first, more = rng.randrange(1, 80), rng.choice(['', '+'])
        if calls == 'openat':                   # only names of the store; those of the system come first
            first += 150
        what = f'{calls}:error={error}:when={first}{more}'
        try:
            bed.start()
            bed.kill(signal.SIGTERM)            # the certificates are there
            around = ['strace', '-f', '-qq', '-o', bed.base + '/trace', '-e', 'trace=' + calls,
                      '-e', 'signal=none', '-e', 'inject=' + what]
            if not bed.start(around=around, must=False):
                kinds['refused to start'] += 1
            else:
                bed.publish('--pause-ms', '5')
                time.sleep(1)
                if bed.process.poll() is not None:
                    report.found([f'the server ended: {bed.log()[-500:]}'], what)
                bed.settle()
                kinds['had errors' if count(bed.events, 'refused') else 'had none'] += 1
                memory = [event for event in bed.events if event['do'] == 'refused'
                          and TOPICS[event['topic']].level == 'memory']
                report.found(memory and [f'a memory topic noticed: {memory[0]}'], what)
                if bed.process.poll() is None:
                    bed.kill()
            bed.start()
            bed.read('--both-ways')
        finally:
            bed.end()
        report.add(bed.events)
        # After a failed sync it is unknown what is on the disk: as after a loss of power.
        report.judge(bed, 'power' if calls.startswith('fdatasync') else 'kill', what=what)
        keep_or_remove(bed, report)
    return f'{options.count} runs ({", ".join(f"{number} {kind}" for kind, number in kinds.items())})'


def rot(options, report):
    """One bit flipped, 4 KiB of zeros, or a byte cut off, in every file in turn."""
    rng, kinds = random.Random(options.seed), collections.Counter()
    bed = Bed(options)
    try:
        bed.start()
        bed.publish('--pause-ms', '5')
        bed.wait_for(4 << 20)
        bed.settle()
        bed.kill()
        report.add(bed.events)
        history = bed.events
        files = sorted(os.path.relpath(os.path.join(folder, name), bed.store)
                       for folder, _, names in os.walk(bed.store) for name in names)
        files = [name for name in files if os.path.getsize(os.path.join(bed.store, name))]
        for run in range(options.count):
            how, name = ('flip', 'zeros', 'cut')[run % 3], files[run // 3 % len(files)]
            image = bed.base + '/image'
            shutil.rmtree(image, ignore_errors=True)
            shutil.copytree(bed.store, image)
            place = damage(os.path.join(image, name), how, rng)
            what = f'{how} in {name} at {place}'
            verified = verify(options, image)
            bed.events = list(history)
            if not bed.start(image, must=False):
                kinds['refused to start'] += 1
                continue
            try:
                read = bed.read()
            except RuntimeError as error:       # a body that is no message, for example
                report.found([str(error)[:200]], what)
                bed.kill()
                continue
            bed.kill()
            report.judge(bed, 'rot', what=what)
            is_told = any(topic['gaps'] for topic in read if not TOPICS[topic['topic']].keep)
            kinds['told' if is_told else 'harmless'] += 1
            if is_told and verified == 0:
                report.found(['something is missing, and verify finds nothing'], what)
    finally:
        bed.end()
    keep_or_remove(bed, report)
    return f'{options.count} damaged files of {len(files)} ({", ".join(f"{n} {kind}" for kind, n in kinds.items())})'


def damage(path, how, rng):
    with open(path, 'rb') as file:
        data = bytearray(file.read())
    used = len(data.rstrip(b'\0')) or len(data)
    place = rng.randrange(used)
    if how == 'flip':
        data[place] ^= 1 << rng.randrange(8)
    elif how == 'zeros':
        place &= ~4095
        data[place:place + 4096] = bytes(len(data[place:place + 4096]))
    else:
        place = len(data) - 1
        data.pop()
    with open(path, 'wb') as file:
        file.write(data)
    return place


def verify(options, store):
    """The exit code of `store verify`."""
    command = [options.server, 'store', 'verify', '--dir', store]
    return subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode


def keep_or_remove(bed, report):
    """Keeps the store and the record of a fault that was not planted."""
    if report.is_bed_bad and not report.fault:
        with open(bed.base + '/events.jsonl', 'w') as file:
            file.writelines(json.dumps(event) + '\n' for event in bed.events)
        report.shown.append(f'kept in {bed.base}')
    else:
        shutil.rmtree(bed.base, ignore_errors=True)
    report.is_bed_bad = False


SUITES = {'kill': (kill, 200), 'power': (power, 1000), 'full': (full, 2), 'inject': (inject, 40), 'rot': (rot, 300)}


def main():
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    built = os.path.join(os.environ.get('CARGO_TARGET_DIR', root + '/target'), 'release')
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('suite', choices=SUITES)
    parser.add_argument('count', nargs='?', type=int, help='how many failures (default: that of docs/DURABILITY.md)')
    parser.add_argument('--server', default=built + '/quic-websocket', help='the server (default: %(default)s)')
    parser.add_argument('--load', default=built + '/examples/durability_load', help='default: %(default)s')
    parser.add_argument('--fault', default='', choices=['', *LEVELS, *SYNCS, 'built-in'], help='plant a fault, which must be found; built-in: --server has one')
    parser.add_argument('--folder', default='/dev/shm' if os.path.isdir('/dev/shm') else None,
                        help='where stores and histories are (default: %(default)s)')
    parser.add_argument('--seed', type=int, default=random.randrange(1 << 32), help='default: at random')
    parser.add_argument('--batch', type=int, default=100, help='power: images of one recording (default: %(default)s)')
    options = parser.parse_args()
    options.server, options.load = os.path.abspath(options.server), os.path.abspath(options.load)
    suite, usual = SUITES[options.suite]
    options.count = options.count or usual
    if options.suite == 'power' and not (shutil.which('strace') and shutil.which('unshare')):
        print('strace or unshare is not installed: the suite power was left out')
        return 0
    report = Report(options.suite, options.fault)
    begun = time.monotonic()
    figures = suite(options, report)
    return int(report.end(f'{figures} in {time.monotonic() - begun:.0f} s'))


if __name__ == '__main__':
    sys.exit(main())

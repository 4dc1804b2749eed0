#!/usr/bin/env python3
"""Kills, power cuts and damaged files against a release build of the store, judged from outside.

    cargo build --release -p quic-websocket-store --example store_bed
    store_bed.py BINARY kill|points|power|rot|full|inject COUNT [FAULT]

`power` needs strace and powercut.py (POWERCUT names its folder). Every line that the publisher printed before the
moment of the fault is an acknowledgement, and has to be found afterwards.
"""
import os, random, shutil, signal, subprocess, sys, tempfile, threading, time

binary, suite, count = os.path.abspath(sys.argv[1]), sys.argv[2], int(sys.argv[3])
fault = sys.argv[4] if len(sys.argv) > 4 else ''
sys.path.insert(0, os.environ.get('POWERCUT', '.'))
SCRATCH = os.environ.get('SCRATCH', '/dev/shm')


class History:
    """What was acknowledged, over all lives of one directory."""
    def __init__(self):
        self.acks = {}       # (topic, epoch) -> {offset: label}
        self.labels = {}     # label -> (topic, epoch, offset)
        self.consumers = {}  # (topic, name) -> (floor, n) acknowledged last
        self.epochs = {}     # topic -> epoch
        self.absent = {}     # (topic, epoch) -> offsets that were seen to be gone
        self.wrong = []

    def copy(self):
        h = History()
        h.acks = {k: dict(v) for k, v in self.acks.items()}
        h.labels, h.consumers, h.epochs = dict(self.labels), dict(self.consumers), dict(self.epochs)
        h.absent = {k: set(v) for k, v in self.absent.items()}
        return h

    def line(self, line):
        w = line.split()
        if not w or w[0] not in ('ok', 'dup', 'consumer') or len(w) != 5: return
        what, topic, epoch, offset, label = w
        if what == 'consumer':
            name, state = label[1:].split('=')
            self.consumers[topic, name] = state
            return
        at = (topic, epoch, int(offset))
        known = self.acks.setdefault((topic, epoch), {})
        if at[2] == 0:       # a publisher that does not wait: it has to be somewhere
            known[-len(known) - 1] = label; self.epochs[topic] = epoch
            return
        if label in self.labels and self.labels[label] != at: self.wrong.append(f'{label} at {at} and {self.labels[label]}')
        if known.get(at[2], label) != label: self.wrong.append(f'{at} is {label} and {known[at[2]]}')
        if what == 'dup' and fault != 'early-ack' and label not in self.labels: self.wrong.append(f'duplicate before its original {line}')
        known[at[2]] = label; self.labels[label] = at; self.epochs[topic] = epoch

    def judge(self, text, power=False, rot=False, resurrect=True):
        """Compares a dump with what was acknowledged; returns what is wrong."""
        wrong, found, heads, damaged, consumers = list(self.wrong), {}, {}, {}, {}
        lines = text.splitlines()
        if not lines or lines[-1] != 'end':
            return wrong + ([] if rot else [f'did not open: {text[-300:]}'])
        for line in lines:
            w = line.split()
            if w[0] == 'topic':
                heads[w[1]] = (w[2], int(w[3]), int(w[4])); found[w[1]] = {}; damaged[w[1]] = []
            elif w[0] == 'rec':
                if 'WRONG' in w[3]: wrong.append(f'wrong content {line[:200]}')
                found[w[1]][int(w[2])] = w[3]
            elif w[0] == 'damaged': damaged[w[1]].append((int(w[2]), int(w[3])))
            elif w[0] == 'consumer': consumers[w[1], w[2]] = w[3]
            elif w[0] in ('mismatch', 'forgot', 'unreadable') and not rot: wrong.append(line)
        for (topic, epoch), acks in self.acks.items():
            is_os = topic.startswith('os')
            if topic not in heads:
                if not (power and is_os) and not rot: wrong.append(f'topic {topic} is gone')
                continue
            now, trimmed, newest = heads[topic]
            if now != epoch:
                if self.epochs[topic] == epoch and not (is_os and power) and not rot:
                    wrong.append(f'{topic}: epoch {epoch} became {now}')
                continue
            for offset, label in acks.items():
                if offset < 0:
                    if label not in found[topic].values() and trimmed == 0: wrong.append(f'{topic} {label} is lost')
                    continue
                got = found[topic].get(offset)
                if got == label or offset <= trimmed and got is None: continue
                told = any(a <= offset <= b for a, b in damaged[topic])
                if got is not None: wrong.append(f'{topic} {offset}: {label} became {got}')
                elif not told or not rot: wrong.append(f'{topic} {offset} {label} is lost, newest {newest}{", told" if told else ""}')
            for offset in self.absent.get((topic, epoch), ()):
                if offset in found[topic] and resurrect and found[topic][offset] not in self.labels:
                    wrong.append(f'{topic} {offset} came back')
        for (topic, name), state in self.consumers.items():
            if topic not in heads or (power and topic.startswith('os')) or rot: continue
            now = consumers.get((topic, name))
            n = lambda s: int(s.split(':')[1])
            if now is None or n(now) < n(state) and len(self.lives) == 1: wrong.append(f'consumer {topic} {name}: {state} became {now}')
            if now is not None and int(now.split(':')[0]) > heads[topic][2]: wrong.append(f'consumer {topic} {name} is ahead')
        return wrong
    lives = [1]


def dump(folder, **env):
    p = subprocess.run([binary, 'dump', folder], capture_output=True, text=True, timeout=60, env=dict(os.environ, **env))
    if p.returncode not in (0, 3): return p.stdout + p.stderr
    return p.stdout


def kill():
    base = tempfile.mkdtemp(dir=SCRATCH); folder = base + '/store'; history = History(); bad = acks = 0
    for life in range(count):
        if life % 20 == 0: shutil.rmtree(folder, ignore_errors=True); history = History()
        p = subprocess.Popen([binary, 'publish', folder, '60', fault], stdout=subprocess.PIPE, text=True)
        end = time.time() + random.uniform(0.02, 0.2)
        killer = threading.Timer(end - time.time(), lambda: p.send_signal(signal.SIGKILL)); killer.start()
        text = p.stdout.read(); p.wait(); killer.cancel()
        history.consumers = {}
        for line in text.splitlines(keepends=True):
            if line.endswith('\n'): history.line(line); acks += 1
        wrong = history.judge(dump(folder))
        if wrong: bad += 1; print('life', life, *wrong[:3], sep='\n  '); history = History(); shutil.rmtree(folder)
    print(f'{fault or "as it is"}: {count} kills, {acks} acknowledgements, {bad} times wrong'); shutil.rmtree(base)
    return bad


POINTS = ['after-write', 'before-sync', 'after-sync', 'in-rotate', 'in-checkpoint', 'in-copy', 'in-recovery']

def points():
    """Ends at named points, in a build with --cfg failpoints. Small segments and a high ratio, so that all are reached."""
    bad = 0
    for point in POINTS:
        base = tempfile.mkdtemp(dir=SCRATCH); folder = base + '/store'; history = History(); reached = wrongs = 0
        for n in range(count):
            most = 2 if point in ('in-recovery', 'in-copy', 'in-checkpoint') else 30
            env = dict(os.environ, SEGMENT='65536', GC='0.9', QWS_STORE_PAUSE=f'{point}:{random.randint(1, most)}')
            p = subprocess.run([binary, 'publish', folder, '8', fault], capture_output=True, text=True, env=env)
            reached += p.returncode == -signal.SIGABRT; history.consumers = {}
            for line in p.stdout.splitlines(keepends=True):
                if line.endswith('\n'): history.line(line)
            wrong = history.judge(dump(folder, SEGMENT='65536', GC='0.9'))
            if wrong: wrongs += 1; print(point, *wrong[:3], sep='\n  '); history = History(); shutil.rmtree(folder)
        print(f'{point}: {reached} of {count} runs ended there, {wrongs} times wrong'); bad += wrongs + (reached == 0)
        shutil.rmtree(base)
    return bad


def power():
    import powercut
    from powercut import TRACE
    class Model(powercut.Model):     # knows files that are opened to append, as well
        appending = set()
        def call(self, at, done, pid, name, args, ret):
            if name in ('write', 'writev'):
                p, fd = powercut.fd_path(args), int(args.split('<')[0])
                if (p, fd) in self.appending and p in self.names: self.pos[p, fd] = self.size[self.names[p]]
            super().call(at, done, pid, name, args, ret)
            if name in ('openat', 'open'):
                (self.appending.add if 'O_APPEND' in args else self.appending.discard)((self.path(args), ret))
    rng = random.Random(int(os.environ.get('SEED', '7'))); images = bad = acks_total = unopened = 0; first = []
    while images < count:
        base = tempfile.mkdtemp(dir=SCRATCH); folder = base + '/store'; os.mkdir(folder)
        if rng.random() < 0.5:   # a store with a life before
            subprocess.run([binary, 'publish', folder, '0.2', fault], stdout=subprocess.DEVNULL)
        model = Model(folder)
        p = subprocess.Popen(['strace', '-ff', '-ttt', '-T', '-y', '--seccomp-bpf', '-xx', '-s', '33554432', '-e', 'trace=' + TRACE,
                              '-o', base + '/trace', binary, 'publish', folder, '0.25', fault], stdout=subprocess.PIPE, text=True)
        acks = [(time.time(), line) for line in p.stdout]; p.wait(); acks_total += len(acks)
        model.load(base + '/trace')
        for t in model.moments(rng, min(250, count - images)):
            model.image(t, base + '/image', rng); images += 1
            history = History()
            for at, line in acks:
                if at <= t: history.line(line)
            text = dump(base + '/image', BOOT='2')   # another run of the machine
            wrong = history.judge(text, power=True)
            if any('did not open' in w for w in wrong): unopened += 1
            if wrong: bad += 1; first += wrong[:2]
        shutil.rmtree(base)
    for line in first[:6]: print('  ', line[:300])
    print(f'{fault or "as it is"}: {images} power cuts, {acks_total} acknowledgements, {bad} times wrong, of these {unopened} did not open')
    return bad


def rot():
    base = tempfile.mkdtemp(dir=SCRATCH); folder = base + '/store'; history = History()
    p = subprocess.Popen([binary, 'publish', folder, '0.4', fault], stdout=subprocess.PIPE, text=True)
    text, _ = p.communicate()
    for line in text.splitlines(): history.line(line)
    rng = random.Random(5); kinds = {'flip': [0, 0, 0, 0], 'zero': [0, 0, 0, 0], 'cut': [0, 0, 0, 0]}; bad = 0; lines = {}
    files = [os.path.relpath(os.path.join(d, f), folder) for d, _, fs in os.walk(folder) for f in fs]
    files = [f for f in sorted(files) if os.path.getsize(os.path.join(folder, f))]
    for n in range(count):
        how = ['flip', 'zero', 'cut'][n % 3]; name = files[n // 3 % len(files)]
        image = base + '/image'; shutil.rmtree(image, ignore_errors=True); shutil.copytree(folder, image)
        path = os.path.join(image, name); data = bytearray(open(path, 'rb').read())
        used = len(data.rstrip(b'\0')) or len(data); at = rng.randrange(used)
        if how == 'flip': data[at] ^= 1 << rng.randrange(8)
        elif how == 'zero': data[at & ~4095:(at & ~4095) + 4096] = bytes(len(data[at & ~4095:(at & ~4095) + 4096]))
        else: data.pop()
        open(path, 'wb').write(data)
        text = dump(image); wrong = history.judge(text, rot=True); row = kinds[how]
        if wrong: row[0] += 1; bad += 1; lines.setdefault(name, []).append(f'{how} at {at}: {len(wrong)} wrong, first: {wrong[0][:150]}')
        elif 'refused' in text or not text.endswith('end\n'): row[1] += 1
        elif 'damaged' in text: row[2] += 1
        else: row[3] += 1
    for name, list in lines.items(): print('  ', name, len(list), 'times;', list[0])
    for how, row in kinds.items(): print(f'{how}: {row[0]} silent or wrong, {row[1]} refused to open, {row[2]} told by range, {row[3]} harmless')
    shutil.rmtree(base); return bad


def full():
    """The store on a file system of 400 MiB that another file fills and leaves again."""
    folder = tempfile.mkdtemp(dir=SCRATCH)
    script = f'''mount -t tmpfs -o size=400m none {folder} && mkdir {folder}/store
        ({binary} publish {folder}/store 6 >> {folder}.log) & sleep 1
        cat /dev/zero > {folder}/filler 2>/dev/null; sleep 2; echo freed >> {folder}.log; rm {folder}/filler; wait
        {binary} dump {folder}/store > {folder}.dump'''
    subprocess.run(['unshare', '-rm', 'sh', '-c', script])
    text = open(folder + '.log').read(); history = History()
    for line in text.splitlines(): history.line(line)
    wrong = history.judge(open(folder + '.dump').read())
    before, _, after = text.partition('freed\n')
    ok = lambda t: sum(l.startswith('ok') for l in t.splitlines())
    print(f'full: {ok(before)} stored before, {text.count("full ")} refused, {text.count("error ")} failed, {ok(after)} stored after room was made, wrong: {wrong[:3]}')
    return len(wrong) + (ok(after) == 0)


def inject():
    """EIO and ENOSPC from the system, at the n-th call."""
    bad = 0
    for n in range(count):
        base = tempfile.mkdtemp(dir=SCRATCH); folder = base + '/store'
        call = random.choice(['fdatasync,fsync', 'pwrite64,pwritev,write', 'pwrite64,pwritev']); error = random.choice(['EIO', 'ENOSPC'])
        p = subprocess.run(['strace', '-f', '-qq', '-o', '/dev/null', '-P', folder, '-e', f'inject={call}:error={error}:when={random.randrange(3, 60)}',
                            binary, 'publish', folder, '0.5'], capture_output=True, text=True)
        history = History()
        for line in p.stdout.splitlines(): history.line(line)
        wrong = history.judge(dump(folder))
        if wrong: bad += 1; print(call, error, wrong[:3])
        shutil.rmtree(base)
    print(f'inject: {count} runs, {bad} times wrong'); return bad


sys.exit(bool({'kill': kill, 'points': points, 'power': power, 'rot': rot, 'full': full, 'inject': inject}[suite]()))

"""The programs under test as child processes: the server, the load, and the reader."""
import json
import os
import signal
import socket
import subprocess
import tempfile
import time

from checker import Topic

# Every level, on topics that keep everything and on topics that keep little.
FEW = 40
TOPICS = {f'{level}.{name}': Topic(level, FEW if name == 'few' else None)
          for level in ('memory', 'os', 'fsync') for name in ('a', 'b', 'few')}
PATIENCE = 120


def free_port():
    """A port of this machine that is free for TCP and UDP."""
    for _ in range(100):
        with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
            tcp.bind(('127.0.0.1', 0))
            try:
                udp.bind(tcp.getsockname())
            except OSError:
                continue
            return tcp.getsockname()[1]
    raise RuntimeError('no port is free for both TCP and UDP')


def settings(port, store, levels=None, **more):
    """The server's settings. `levels` overrides the levels of topics: with it, faults are planted."""
    rules = []
    for name, topic in TOPICS.items():
        level = (levels or {}).get(topic.level, topic.level)
        rules.append(f'[[topics]]\npattern = "{name}"\ndurability = "{level}"\n'
                     f'history_messages = {topic.keep or 1_000_000}\nhistory_bytes = 1073741824\n'
                     'history_age_ms = 3600000\n')
    # Few messages in memory, so that most are read from the disk.
    stored = dict(segment_bytes=1 << 20, min_free_bytes=1 << 20, cache_messages=100, **more)
    lines = '\n'.join(f'{name} = {json.dumps(value)}' for name, value in stored.items())
    return (f'addr = "127.0.0.1:{port}"\nworkers = 2\n[limits]\ntopic_keys = 100000\ntopic_memory_bytes = 1073741824\n'
            f'[timing]\ntopic_key_ms = 3600000\n[store]\ndir = {json.dumps(store)}\n{lines}\n' + '\n'.join(rules))


class Bed:
    """A folder with a server's settings, certificates and store, and the programs that use it."""
    def __init__(self, options, levels=None, store=None, **more):
        self.options = options
        self.base = tempfile.mkdtemp(prefix='durability-', dir=options.folder)
        self.store = store or self.base + '/store'
        self.port, self.levels, self.more = free_port(), levels, more
        self.events, self.process, self.loads = [], None, []

    def configure(self, store):
        path = self.base + '/settings.toml'
        with open(path, 'w') as file:
            file.write(settings(self.port, store, self.levels, **self.more))
        return path

    def start(self, store=None, around=(), must=True, binary=None, env=()):
        """Starts the server, on another folder or within another command if given. False if it refused."""
        path = self.configure(store or self.store)
        environment = {name: value for name, value in os.environ.items() if not name.startswith('QWS_')}
        environment |= {'QUIC_WEBSOCKET_CERTS': self.base + '/certs', 'RUST_LOG': 'info', **dict(env)}
        log = open(self.base + '/log', 'w')
        command = [*around, binary or self.options.server, '--config', path]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment,
                                        cwd=self.base)
        log.close()
        end = time.monotonic() + PATIENCE
        while 'Listening on: ' not in self.log():
            if self.process.poll() is not None:
                if must:
                    raise RuntimeError('the server did not start: ' + self.log())
                return False
            if time.monotonic() > end:
                raise RuntimeError('the server is not up in time: ' + self.log())
            time.sleep(0.005)
        self.note('started')
        return True

    def log(self):
        with open(self.base + '/log', errors='replace') as file:
            return file.read()

    def note(self, do):
        self.events.append({'do': do, 'at': time.time()})

    def kill(self, how=signal.SIGKILL):
        """Ends the server, or the one that a command like strace has started."""
        self.note('killed')
        pid = self.process.pid
        with open(f'/proc/{pid}/comm') as file:
            if file.read().strip() == 'strace':
                with open(f'/proc/{pid}/task/{pid}/children') as children:
                    pid = int(children.read().split()[0])
        os.kill(pid, how)
        self.process.wait(PATIENCE)

    def publish(self, *arguments):
        """Starts a load, which goes on until `settle`."""
        number = len(self.loads)
        out = open(f'{self.base}/history.{number}', 'w')
        command = [self.options.load, 'run', *self.where(), '--prefix', chr(ord('a') + number), *arguments]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=out)
        out.close()
        self.loads.append((process, out.name))

    def where(self):
        return ['--server', f'127.0.0.1:{self.port}', '--ca', self.base + '/certs/ca.pem', '--topics', ','.join(TOPICS)]

    def wait_for(self, size):
        """Waits until the newest history has this many bytes: on a slow machine time says little."""
        end = time.monotonic() + PATIENCE
        while os.path.getsize(self.loads[-1][1]) < size and time.monotonic() < end:
            time.sleep(0.01)

    def settle(self):
        """Ends the loads, which wait for what is in flight, and takes over their histories."""
        for process, path in self.loads:
            if process.stdin and not process.stdin.closed:
                process.stdin.close()
                if process.wait(PATIENCE) != 0:
                    raise RuntimeError(f'the load ended with {process.returncode}')
                self.events += events_of(path)

    def read(self, *arguments):
        """Reads everything back."""
        command = [self.options.load, 'read', *self.where(), *arguments]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=PATIENCE)
        if done.returncode:
            raise RuntimeError(f'nothing can be read: {done.stderr} {self.log()[-2000:]}')
        read = [json.loads(line) for line in done.stdout.splitlines()]
        self.events += read
        return read

    def end(self):
        for process in [self.process] + [process for process, _ in self.loads]:
            if process and process.poll() is None:
                process.kill()
                process.wait()


def events_of(path):
    with open(path) as file:
        return [json.loads(line) for line in file]


def count(events, do):
    return sum(event['do'] == do for event in events)

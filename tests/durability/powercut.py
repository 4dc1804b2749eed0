"""Simulated loss of power for an unmodified program, without FUSE, kernel modules or hooks in the code.

1. Record: strace with `command(trace)` writes down each call that changes files.
2. Images: `Disk(root).load(trace)` replays the calls on a model of a disk. `image(moment, ...)` writes what the disk may
   have when the power fails at that moment: what a sync had made durable that had returned by then, and of all else
   that was begun a random part, by sectors of 512 bytes.
3. Check: start the program on the image; what it had acknowledged before that moment has to be there.

The model is strict POSIX: fsync and fdatasync of a file cover its data and size that were written before the call began;
a name (create, rename, unlink) is durable once its directory was synced. Names of one directory persist in order, as in
a journal; data of different files in no order. Writes by mmap and io_uring are invisible to strace, so a program that
uses them for its files cannot be tested this way. Directories count as durable once they are made.

`Disk(root, without=...)` ignores a kind of sync, as if the program did not have it: 'fsync' all, 'dir-fsync' those of
directories. This plants a fault without a build of its own.
"""
import glob
import os
import random
import re
import shutil
from collections import defaultdict

SECTOR = 512
CALLS = ('openat,open,creat,write,pwrite64,writev,pwritev,pwritev2,fsync,fdatasync,rename,renameat,renameat2,'
         'unlink,unlinkat,ftruncate,fallocate,mkdir,mkdirat,lseek,sync_file_range')
# Start, call, arguments, result, and the time that it took. Strings are written as hexadecimal bytes.
LINE = re.compile(r'^(\d+\.\d+) (\w+)\((.*)\)\s+= (-?\d+)(?:<[^>]*>)?[^<]*(?:<(\d+\.\d+)>)?$')
NEVER = float('inf')


def command(trace):
    """The start of a command line that records what follows it. `trace` is the prefix of the files that it writes."""
    return ['strace', '-ff', '-ttt', '-T', '-y', '--seccomp-bpf', '-xx', '-s', '33554432', '-e', 'trace=' + CALLS,
            '-e', 'signal=none', '-o', trace]


def bytes_of(text):
    return bytes.fromhex(text.replace('\\x', ''))


def strings(arguments):
    return [bytes_of(text) for text in re.findall(r'"((?:\\x[0-9a-f]{2})*)"', arguments)]


def path_of_descriptor(arguments):
    found = re.match(r'-?\w+<((?:\\x[0-9a-f]{2})+)>', arguments)
    return os.fsdecode(bytes_of(found[1])) if found else None


class Change:
    """One thing that becomes durable, or not, by itself."""
    __slots__ = ('at', 'kind', 'file', 'folder', 'values', 'durable')

    def __init__(self, at, kind, file=None, folder=None, values=()):
        self.at, self.kind, self.file, self.folder, self.values, self.durable = at, kind, file, folder, values, NEVER


class Disk:
    def __init__(self, root, without=None):
        self.root, self.without = os.path.realpath(root), without
        self.changes, self.names, self.sizes, self.positions, self.appending = [], {}, {}, {}, set()
        self.open_changes = defaultdict(list)   # of a file or a folder: not durable yet
        self.base = {}                          # files that were there before the recording
        self.folders = [folder for folder, _, _ in os.walk(self.root)]
        for folder, _, files in os.walk(self.root):
            for name in files:
                path = os.path.join(folder, name)
                with open(path, 'rb') as file:
                    data = file.read()
                number = self.new_file(path, len(data))
                self.base[number] = (path, data)

    def new_file(self, path, size=0):
        number = len(self.sizes)
        self.names[path], self.sizes[number] = number, size
        return number

    def is_inside(self, path):
        return path is not None and (path == self.root or path.startswith(self.root + '/'))

    def load(self, trace):
        """Replays what strace wrote."""
        calls = []
        for name in glob.glob(glob.escape(trace) + '.*'):
            with open(name) as file:
                for line in file:
                    found = LINE.match(line.rstrip('\n'))
                    if found and int(found[4]) >= 0:
                        begun = float(found[1])
                        calls.append((begun, begun + float(found[5] or 0), found[2], found[3], int(found[4])))
        for call in sorted(calls):
            self.call(*call)
        return self

    def path(self, arguments, which=0):
        found = strings(arguments)
        if len(found) <= which:
            return None
        path = os.fsdecode(found[which])
        if not path.startswith('/'):
            path = os.path.join(path_of_descriptor(arguments) or os.getcwd(), path)
        return os.path.normpath(path)

    def change(self, *values, **more):
        change = Change(*values, **more)
        self.changes.append(change)
        self.open_changes[change.file if change.folder is None else change.folder].append(change)

    def call(self, at, done, name, arguments, result):
        if name in ('openat', 'open', 'creat'):
            self.opened(at, name, arguments, result)
        elif name in ('write', 'pwrite64', 'writev', 'pwritev', 'pwritev2'):
            self.written(at, name, arguments, result)
        elif name == 'lseek':
            path = path_of_descriptor(arguments)
            if self.is_inside(path):
                self.positions[path, int(re.match(r'\d+', arguments)[0])] = result
        elif name in ('ftruncate', 'fallocate'):
            path = path_of_descriptor(arguments)
            if self.is_inside(path) and path in self.names:
                numbers, file = [int(number) for number in re.findall(r', (\d+)', arguments)], self.names[path]
                size = numbers[-1] if name == 'ftruncate' else max(self.sizes[file], numbers[-1] + numbers[-2])
                self.sizes[file] = size
                self.change(at, 'size', file, values=(size,))
        elif name in ('fsync', 'fdatasync'):
            self.synced(at, done, path_of_descriptor(arguments))
        elif name.startswith('rename'):
            source, target = self.path(arguments, 0), self.path(arguments, 1)
            if self.is_inside(source):
                file = self.names.pop(source)
                self.names[target] = file
                self.change(at, 'rename', file, os.path.dirname(target), (source, target))
        elif name.startswith('unlink'):
            path = self.path(arguments)
            if self.is_inside(path) and path in self.names:
                self.change(at, 'unlink', self.names.pop(path), os.path.dirname(path), (path,))
        elif name.startswith('mkdir'):
            path = self.path(arguments)
            if self.is_inside(path):
                self.folders.append(path)

    def opened(self, at, name, arguments, descriptor):
        path = self.path(arguments)
        if not self.is_inside(path):
            return
        if path not in self.names and ('O_CREAT' in arguments or name == 'creat'):
            self.change(at, 'link', self.new_file(path), os.path.dirname(path), (path,))
        elif path in self.names and ('O_TRUNC' in arguments or name == 'creat'):
            self.sizes[self.names[path]] = 0
            self.change(at, 'size', self.names[path], values=(0,))
        self.positions[path, descriptor] = 0
        (self.appending.add if 'O_APPEND' in arguments else self.appending.discard)((path, descriptor))

    def written(self, at, name, arguments, result):
        path = path_of_descriptor(arguments)
        if not self.is_inside(path) or path not in self.names:
            return
        data, file = b''.join(strings(arguments))[:result], self.names[path]
        if len(data) != result:
            raise ValueError('strace has cut off what was written: raise -s')
        descriptor = int(re.match(r'\d+', arguments)[0])
        if name.startswith('p'):
            place = 2 if name == 'pwritev2' else 1
            offset = int(arguments.rsplit(',', place)[1].strip().split(',')[0])
        else:
            is_appended = (path, descriptor) in self.appending
            offset = self.sizes[file] if is_appended else self.positions.get((path, descriptor), self.sizes[file])
            self.positions[path, descriptor] = offset + result
        self.sizes[file] = max(self.sizes[file], offset + len(data))
        self.change(at, 'data', file, values=(offset, data))

    def synced(self, at, done, path):
        """What was begun before the call is durable once it has returned."""
        if not self.is_inside(path) or self.without == 'fsync':
            return
        is_folder = path not in self.names
        if is_folder and self.without == 'dir-fsync':
            return
        key = path if is_folder else self.names[path]
        later = []
        for change in self.open_changes[key]:
            if change.at < at:
                change.durable = done
            else:
                later.append(change)
        self.open_changes[key] = later

    def moments(self, rng, count):
        """Moments just before and after the calls."""
        times = {change.at for change in self.changes}
        times |= {change.durable for change in self.changes if change.durable < NEVER}
        moments = [moment for time in sorted(times) for moment in (time - 1e-6, time + 1e-6)]
        return sorted(rng.sample(moments, min(count, len(moments))))

    def image(self, moment, out, rng):
        """Writes what may be on the disk when the power fails at a moment."""
        keep = rng.choice([0.0, 0.25, 0.5, 0.9, 1.0])
        files = {number: bytearray(data) for number, (_, data) in self.base.items()}
        names = {path: number for number, (path, _) in self.base.items()}
        stopped = set()                         # folders of which an earlier change is lost
        for change in self.changes:
            if change.at > moment:
                break
            is_sure = change.durable <= moment
            if change.folder is not None:
                if not is_sure and (change.folder in stopped or rng.random() >= keep):
                    stopped.add(change.folder)
                elif change.kind == 'unlink':
                    names.pop(change.values[0], None)
                else:
                    if change.kind == 'rename':
                        names.pop(change.values[0], None)
                    names[change.values[-1]] = change.file
            elif change.kind == 'size':
                if is_sure or rng.random() < keep:
                    data, size = files.setdefault(change.file, bytearray()), change.values[0]
                    del data[size:]
                    data.extend(bytes(size - len(data)))
            else:
                self.keep_sectors(files.setdefault(change.file, bytearray()), *change.values, is_sure, keep, rng)
        shutil.rmtree(out, ignore_errors=True)
        for folder in self.folders:
            os.makedirs(os.path.join(out, os.path.relpath(folder, self.root)), exist_ok=True)
        for path, number in names.items():
            target = os.path.join(out, os.path.relpath(path, self.root))
            os.makedirs(os.path.dirname(target), exist_ok=True)
            with open(target, 'wb') as file:
                file.write(files.get(number, b''))

    @staticmethod
    def keep_sectors(data, offset, new, is_sure, keep, rng):
        start, last = offset, offset + len(new)
        while start < last:
            end = last if is_sure else min((start // SECTOR + 1) * SECTOR, last)
            if is_sure or rng.random() < keep:
                if len(data) < end:
                    data.extend(bytes(end - len(data)))
                data[start:end] = new[start - offset:end - offset]
            start = end

#!/usr/bin/env python3
"""The simulated loss of power finds the faults of a toy log, and finds none in it without a fault. Needs strace."""
import os
import random
import shutil
import struct
import subprocess
import sys
import tempfile
import time
import unittest
import zlib

import powercut

RECORDS = 96
TOY = r'''
import os, struct, sys, zlib
folder, fault, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
def acknowledge(numbers):
    for number in numbers: print(number, flush=True)
log, number, segment = -1, 0, 0
while number < count:
    if number % 24 == 0:
        segment += 1
        log, offset = os.open(f'{folder}/{segment:04}.log', os.O_CREAT | os.O_RDWR), 0
        if fault != 'no-dir-fsync': os.fsync(os.open(folder, os.O_RDONLY))
    group, numbers = b'', range(number, number + 4)
    for number in numbers:
        body = struct.pack('>I', number) * 60
        group += struct.pack('>II', len(body), zlib.crc32(body)) + body
    number += 1
    if fault == 'early': acknowledge(numbers)
    os.pwrite(log, group, offset)
    offset += len(group)
    if fault != 'no-fsync': os.fdatasync(log)
    if fault != 'early': acknowledge(numbers)
'''


def recover(folder, has_checksums):
    """The records that are whole, and how many of them have a content that was never written."""
    found, wrong = set(), 0
    for name in sorted(os.listdir(folder)):
        with open(os.path.join(folder, name), 'rb') as file:
            data = file.read()
        at = 0
        while at + 8 <= len(data):
            length, checksum = struct.unpack_from('>II', data, at)
            body = data[at + 8:at + 8 + length]
            if length != 240 or len(body) < length or has_checksums and zlib.crc32(body) != checksum:
                break
            numbers = set(struct.unpack('>60I', body))
            wrong += len(numbers) > 1
            found |= numbers
            at += 8 + length
    return found, wrong


@unittest.skipUnless(shutil.which('strace'), 'strace is not installed')
class ToyLog(unittest.TestCase):
    def cuts(self, fault='', without=None, has_checksums=True, images=100):
        """How many of the images have lost something acknowledged, and how many show a wrong record."""
        with tempfile.TemporaryDirectory() as base:
            folder = os.path.join(base, 'log')
            os.mkdir(folder)
            disk = powercut.Disk(folder, without)
            toy = powercut.command(base + '/trace') + [sys.executable, '-c', TOY, folder, fault, str(RECORDS)]
            with subprocess.Popen(toy, stdout=subprocess.PIPE, text=True) as process:
                acknowledged = [(time.time(), int(line)) for line in process.stdout]
            self.assertEqual(len(acknowledged), RECORDS)
            disk.load(base + '/trace')
            rng, lost, wrong = random.Random(7), 0, 0
            for moment in disk.moments(rng, images):
                disk.image(moment, base + '/image', rng)
                found, bad = recover(base + '/image', has_checksums)
                lost += not {number for at, number in acknowledged if at <= moment} <= found
                wrong += bad > 0
            return lost, wrong

    def test_without_a_fault_nothing_is_lost(self):
        self.assertEqual(self.cuts(), (0, 0))

    def test_a_missing_sync_is_found(self):
        self.assertGreater(self.cuts('no-fsync')[0], 10)
        self.assertGreater(self.cuts(without='fsync')[0], 10)

    def test_a_missing_sync_of_the_folder_is_found(self):
        self.assertGreater(self.cuts('no-dir-fsync')[0], 10)
        self.assertGreater(self.cuts(without='dir-fsync')[0], 10)

    def test_an_early_acknowledgement_is_found(self):
        self.assertGreater(self.cuts('early')[0], 10)

    def test_missing_checksums_are_found(self):
        self.assertGreater(self.cuts(has_checksums=False, images=400)[1], 0)


if __name__ == '__main__':
    unittest.main()

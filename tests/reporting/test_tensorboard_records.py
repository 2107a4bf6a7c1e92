"""The records are what TensorBoard's own writer writes."""

import io

import pytest
from tensorboard.summary.writer.record_writer import RecordWriter

from ava.reporting.tensorboard_records import crc32c, record


@pytest.mark.parametrize("data", [b"", b"a", b"123456789", bytes(range(256)) * 3])
def test_a_record_is_byte_for_byte_tensorboards(data):
    file = io.BytesIO()
    RecordWriter(file).write(data)
    assert record(data) == file.getvalue()


def test_the_checksum_of_the_standard():
    """RFC 3720's check value."""
    assert crc32c(b"123456789") == 0xE3069283

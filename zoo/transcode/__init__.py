"""Files and folders through a tokenizer: encoding, decoding, and both at once with figures of what was lost.

Each function checks its arguments and returns `FileResults`, which does the work as it is iterated over: one
`FileResult` per file, so that a damaged file is reported and skipped. `encode_pcm` and `decode_pcm` take and write
streams of bytes instead.
"""

from zoo.transcode.decoding import decode_files
from zoo.transcode.encoding import encode_files
from zoo.transcode.pipes import decode_pcm, encode_pcm
from zoo.transcode.reconstruction import reconstruct, reconstruct_files
from zoo.transcode.results import Figures, FileResult, FileResults, Reconstruction

__all__ = [
    "Figures",
    "FileResult",
    "FileResults",
    "Reconstruction",
    "decode_files",
    "decode_pcm",
    "encode_files",
    "encode_pcm",
    "reconstruct",
    "reconstruct_files",
]

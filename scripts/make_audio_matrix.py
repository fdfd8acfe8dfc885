#!/usr/bin/env python3
"""Writes tests/fixtures/audio-matrix/: small recordings in every container, and what ffmpeg reads of them and of what
becomes of them when they are joined, cut, tagged or given another header.

Needs numpy and imageio-ffmpeg (pip install numpy imageio-ffmpeg). `python3 scripts/make_audio_matrix.py`

cases.jsonl holds one case a line: the bytes of a file as a list of parts (a file of the folder, or bytes in hexadecimal),
changes of it (place and bytes), and what ffmpeg reads: the number of frames and some windows of samples at 16 kHz. Where
ffmpeg refuses what players forgive (a tag in front of a container that has none), or where a file must be refused, the
case says so and why.
"""

import json
import struct
import subprocess
import tempfile
import wave
from pathlib import Path

import imageio_ffmpeg
import numpy as np

FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()
FOLDER = Path(__file__).resolve().parent.parent / "tests/fixtures/audio-matrix"
RATE = 16_000
CONTAINERS = {
    "wav": "-c:a pcm_s16le",
    "flac": "-c:a flac",
    "mp3": "-c:a libmp3lame -b:a 32k",
    "ogg": "-c:a libvorbis -q:a 0 -page_duration 200000",
    "aiff": "-c:a pcm_s16be",
    # Without noise that decoders make up each in its own way.
    "m4a": "-c:a aac -b:a 32k -aac_pns 0 -movflags +faststart",
    "alac.m4a": "-c:a alac",
    "caf": "-c:a pcm_s16be",
    "opus": "-c:a libopus -b:a 16k",
    "webm": "-c:a libopus -b:a 16k",
}
# Other codecs in these containers, and files written while they were recorded.
FURTHER = {
    "fragments.m4a": "-c:a aac -b:a 32k -aac_pns 0 -movflags frag_keyframe+empty_moov -frag_duration 300000",
    "aac.mka": "-c:a aac -b:a 32k -aac_pns 0",
    "mp3.mka": "-c:a libmp3lame -b:a 32k",
    "vorbis.webm": "-c:a libvorbis -q:a 0",
    "live.webm": "-c:a libopus -b:a 16k -f webm -live 1",
    "opus.mp4": "-c:a libopus -b:a 16k",
    "alac.mov": "-c:a alac",
    "amr.3gp": "-c:a libopencore_amrnb -ar 8000 -ac 1",
    "mp2": "-c:a mp2 -b:a 32k",
}
LONG = ["flac", "mp3", "ogg", "m4a", "opus", "webm"]
OPUS = ("opus", "webm", "live.webm")
JOINED_WHOLE = {"flac", "mp3", "ogg", "opus"}
REFUSED = {
    "opus.mp4": "Opus in MP4",
    "alac.mov": "ALAC in QuickTime",
    "amr.3gp": "AMR in 3GP or MP4",
    "mp2": "MPEG audio of layer 1 or 2 (MP2)",
}
FRONT = JOINED_WHOLE  # containers that ffmpeg finds behind a tag


def sound(seconds: float, seed: int) -> np.ndarray:
    """Harmonics of a gliding voice below 2.5 kHz, with a little noise there: nothing that resampling could change."""
    time = np.arange(round(seconds * RATE)) / RATE
    phase = 2 * np.pi * np.cumsum(130 + 40 * np.sin(2 * np.pi * 0.7 * time) + 9 * seed) / RATE
    voice = sum(np.sin(k * phase + k * seed) / k for k in range(1, 12)) * 0.12
    voice *= 0.6 + 0.4 * np.sin(2 * np.pi * 3 * time)
    noise = np.fft.rfft(np.random.default_rng(seed).standard_normal(time.size))
    noise[np.fft.rfftfreq(time.size, 1 / RATE) > 2500] = 0
    return np.clip(voice + 0.004 * np.fft.irfft(noise, time.size), -1, 1)


def ffmpeg(*words: str) -> bytes:
    return subprocess.run([FFMPEG, "-v", "error", "-nostdin", "-y", *words], check=False, capture_output=True).stdout


def write(name: str, samples: np.ndarray, containers: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        plain = f"{folder}/plain.wav"
        with wave.open(plain, "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(RATE)
            file.writeframes((samples * 32767).round().astype("<i2").tobytes())
        for container in containers:
            words = f"{(CONTAINERS | FURTHER)[container]} -bitexact -fflags +bitexact".split()
            ffmpeg("-i", plain, *words, str(FOLDER / f"{name}.{container}"))


def read(bytes_: bytes, container: str) -> np.ndarray:
    """What ffmpeg reads of a file, at 16 kHz. Of Opus by libopus: ffmpeg's own decoder resamples the speech part
    otherwise than the reference."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"a.{container}"
        path.write_bytes(bytes_)
        is_opus = container in OPUS
        decoder = ["-c:a", "libopus"] if is_opus else []
        samples = np.frombuffer(ffmpeg(*decoder, "-i", str(path), "-map", "0:a:0", "-f", "f32le", "-"), "<f4")
        return from_48_khz(samples) if is_opus else samples


def from_48_khz(samples: np.ndarray) -> np.ndarray:
    """A third of the samples, by the Fourier transform: exact for what is far from the ends."""
    size = -(-samples.size // 3)
    spectrum = np.fft.rfft(samples.astype(float), 3 * size)
    return np.fft.irfft(spectrum[: size // 2 + 1], size) / 3


def ogg_sum(page: bytes) -> int:
    register = 0
    for byte in page:
        register ^= byte << 24
        for _ in range(8):
            register = ((register << 1) ^ 0x04C11DB7 if register & 0x80000000 else register << 1) & 0xFFFFFFFF
    return register


def claim(container: str, data: bytes, more: int) -> list[list]:
    """The changes that let a header claim so many frames more."""
    if container == "wav":
        at = data.index(b"data") + 4
        size = struct.unpack_from("<I", data, at)[0] + 2 * more
        return [[at, struct.pack("<I", size).hex()]]
    if container == "flac":
        packed = int.from_bytes(data[18:26], "big") + more
        return [[18, packed.to_bytes(8, "big").hex()]]
    if container == "mp3":
        at = max(data.find(b"Info"), data.find(b"Xing")) + 8
        frames = struct.unpack_from(">I", data, at)[0] + (more // 576)
        return [[at, struct.pack(">I", frames).hex()]]
    if container in ("ogg", "opus"):
        more *= 3 if container == "opus" else 1
        at = data.rindex(b"OggS")
        page = bytearray(data[at:])
        struct.pack_into("<q", page, 6, struct.unpack_from("<q", page, 6)[0] + more)
        page[22:26] = bytes(4)
        page[22:26] = struct.pack("<I", ogg_sum(page))
        return [[at, bytes(page[:26]).hex()]]
    if container == "aiff":
        at = data.index(b"SSND") + 4
        size = struct.unpack_from(">I", data, at)[0] + 2 * more
        return [[at, struct.pack(">I", size).hex()]]
    if container == "caf":
        at = data.index(b"data") + 4
        size = struct.unpack_from(">q", data, at)[0] + 2 * more
        return [[at, struct.pack(">q", size).hex()]]
    if container.endswith("m4a"):
        at = data.index(b"mdhd") + 20
        return [[at, struct.pack(">I", struct.unpack_from(">I", data, at)[0] + more).hex()]]
    raise ValueError(container)


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    for old in FOLDER.iterdir():
        old.unlink()
    write("a", sound(1.2, 1), list(CONTAINERS | FURTHER))
    write("b", sound(0.5, 2), list(CONTAINERS))
    write("long", sound(6.0, 3), LONG)
    tag_v2 = b"ID3\x03\0\0\0\0\x02\0" + bytes(256)
    tag_v1 = b"TAG" + b"a title".ljust(125, b"\0")
    rows = []
    for container in CONTAINERS | FURTHER:
        data = (FOLDER / f"a.{container}").read_bytes()
        other = (FOLDER / f"b.{container}").read_bytes() if container in CONTAINERS else b""
        clean = read(data, container)

        def case(name, parts, changes=(), start=None, end=None, expected=None, error=None):
            blob = b"".join((FOLDER / part["file"]).read_bytes()[: part.get("bytes")] if "file" in part
                            else bytes.fromhex(part["hex"]) for part in parts)
            blob = bytearray(blob)
            for place, text in changes:
                blob[place : place + len(text) // 2] = bytes.fromhex(text)
            row = {"container": container, "case": name, "parts": parts, "changes": list(changes)}
            if error:
                rows.append(row | {"error": error})
                return
            heard = read(bytes(blob), container) if expected is None else expected
            if start is not None:
                heard = heard[round(start * RATE) : round(end * RATE)]
                row |= {"start": start, "end": end}
            size = len(heard)
            places = [size // 4, size // 2, 3 * size // 4] if container in OPUS else [0, size // 3, size - 8]
            windows = [[place, [round(float(sample), 6) for sample in heard[place : place + 8]]] for place in places]
            rows.append(row | {"frames": size, "windows": windows})

        a, b = {"file": f"a.{container}"}, {"file": f"b.{container}"}
        hexes = lambda bytes_: {"hex": bytes_.hex()}
        in_front = None if container in FRONT else clean
        if container in REFUSED:
            case("whole", [a], error=f"{REFUSED[container]} is not read; convert it: ffmpeg -i in.")
            continue
        case("whole", [a])
        if container in FURTHER:
            case("start and end", [a], start=0.31, end=0.52)
            junk = bytes((i * 37 + 11) % 251 for i in range(100))
            case("tag behind", [a, hexes(tag_v1)], expected=clean)
            case("junk behind", [a, hexes(junk)], expected=clean)
            case("cut in half", [{"file": f"a.{container}", "bytes": len(data) // 2}], error="truncated")
        if container == "live.webm":
            # ffmpeg goes on behind the damage, without what was in it.
            case("damaged", [a], [[len(data) // 2, (b"\x11" * 600).hex()]], error="begins nothing that WebM has")
        if container in FURTHER:
            continue
        case("tag in front", [hexes(tag_v2), a], expected=in_front)
        case("tag behind", [a, hexes(tag_v1)])
        case("tag at both ends", [hexes(tag_v2), a, hexes(tag_v1)], expected=in_front)
        case("newline behind", [a, hexes(b"\n")])
        case("junk behind", [a, hexes(bytes((i * 37 + 11) % 251 for i in range(100)))])
        if container == "opus":
            # ffmpeg with libopus gives up at the second file; ffmpeg's own decoder reads as many samples as this.
            case("joined", [a, b], expected=np.concatenate([clean, read(other, container)]))
        elif container in JOINED_WHOLE:
            case("joined", [a, b])
        else:
            case("joined", [a, b], error=f"a second file begins at byte {len(data)}")
        case("cut in half", [{"file": f"a.{container}", "bytes": len(data) // 2}], error="truncated")
        if container in ("ogg", "opus"):
            # ffmpeg leaves out the page, a second or all of the sound.
            case("a bit flipped", [a], [[len(data) - 200, bytes([data[-200] ^ 1]).hex()]],
                 error="the checksum of the page at byte")
        if container == "m4a":
            # What announces that high frequencies are restored, as an object of its own and behind that of LC.
            at = data.index(bytes.fromhex("05808080051408"))
            for name, config in (("HE-AAC", "2c0a080000"), ("HE-AAC that older players take for LC", "140856e5c0")):
                case(name, [a], [[at + 5, config]], error="AAC of another kind than LC")
        if container != "webm":  # which claims nothing
            case("header claims a little more", [a], claim(container, data, 2_000))
            case("header claims less", [a], claim(container, data, -1_728))
        if container in ("wav", "flac", "mp3", "aiff", "caf"):
            case("header claims much more", [a], claim(container, data, 20_000), error="truncated")
        case("start and end", [a], start=1.05, end=1.15)
        if container in LONG:
            long = {"file": f"long.{container}"}
            case("far start and end", [long], start=4.5, end=5.0)
            case("nearer start and end", [long], start=2.71, end=3.13)
    lines = [json.dumps(row, separators=(",", ":")) for row in rows]
    (FOLDER / "cases.jsonl").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()

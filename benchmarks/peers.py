"""Speed and memory of zoo's networks and of the same networks in other packages, with the same weights.

    python benchmarks/peers.py [--only NAME ...] [--batches N ...] [--rounds N] [--json FILE]
    python benchmarks/peers.py --markdown [--json FILE]

A network of the other package gets random weights, which are converted to ours as a published file is. Both encode the
same noise and decode the same codes, turn by turn in one process, on one thread, with freed memory kept
(`zoo.keep_freed_memory`) and ours prepared (`zoo.for_inference`). Each figure is the least of several rounds:
processor time of the process (user and system), and time by the clock. Ratios are theirs / ours: above 1, ours is
faster. Memory is what one call takes beyond what the process held before: the kernel's high-water mark, after freed
memory was returned. Share of the peak is the network's arithmetic, counted without what `zoo.for_inference` saves of
it, by what the machine computes in the same time: the faster of a product of large matrices and a convolution of 3x3,
measured in the same process. Recurrent layers are not counted.

`--markdown` measures nothing and prints the table of the JSON file that is there. `benchmarks/quantizers.py` compares
quantizers with those of vector-quantize-pytorch.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from processes import ROOT, printed_by  # beside this file

RESULTS = ROOT / "benchmarks" / "results" / "peers.json"
BATCHES = (1, 8)


class Theirs(NamedTuple):
    """Another package's network, and what its methods take and return in our layouts; `decode` None: it has none.

    keys: key map of the tensors as the package's users publish them. layout: where those lie in the file. renamed:
    beginnings of names in the network, and in the file.
    """

    network: Any
    keys: Any
    encode: Callable[[Any], Any]
    decode: Callable[[Any], Any] | None
    layout: tuple[str, ...] = ()
    renamed: tuple[tuple[str, str], ...] = ()


class Peer(NamedTuple):
    """package: where the network is from. variant: ours. size: of a signal, by the axes of its modality."""

    package: str
    variant: str
    size: tuple[int, ...]
    build: Callable[[Any], Theirs]


def wavtokenizer(variant: Any) -> Theirs:
    from transformers import WavTokenizerConfig, WavTokenizerModel

    network = WavTokenizerModel(WavTokenizerConfig()).eval()
    return Theirs(
        network,
        variant.sources[-1].keys,
        lambda audio: network.encode(audio).audio_codes,
        lambda codes: network.decode(codes).audio_values,
    )


def mimi(variant: Any) -> Theirs:
    from transformers import MimiConfig, MimiModel

    network = MimiModel(MimiConfig()).eval()
    return Theirs(
        network,
        variant.sources[0].keys,
        lambda audio: network.encode(audio, num_quantizers=8).audio_codes,
        lambda codes: network.decode(codes).audio_values,
        renamed=(
            ("encoder.encoder_seanet.", "encoder."),
            ("encoder.", ""),
            ("decoder.decoder_seanet.", "decoder."),
            ("decoder.", ""),
        ),
    )


def snac(variant: Any) -> Theirs:
    from snac import SNAC

    network = SNAC(24000, 48, [2, 4, 8, 8], None, 1024, [8, 8, 4, 2], None, 4096, 8, [4, 2, 1]).eval()
    ours = variant.build()
    return Theirs(
        network,
        variant.sources[0].keys,
        lambda audio: ours.from_levels(network.encode(audio)),
        lambda codes: network.decode(ours.to_levels(codes)),
    )


def emu3(variant: Any) -> Theirs:
    import torch
    from transformers import Emu3VQVAE, Emu3VQVAEConfig

    network = Emu3VQVAE(Emu3VQVAEConfig()).eval()

    def encode(image: Any) -> Any:
        sizes = torch.tensor([image.shape[2:]] * len(image))
        return torch.stack(list(network.encode(image * 2 - 1, sizes).image_tokens))[:, None]

    return Theirs(
        network,
        variant.sources[-1].keys,
        encode,
        lambda codes: (network.decode(codes[:, 0]) / 2 + 0.5).clamp(0, 1),
    )


def chameleon(variant: Any) -> Theirs:
    from transformers import ChameleonVQVAE
    from transformers.models.chameleon.configuration_chameleon import ChameleonVQVAEConfig

    network = ChameleonVQVAE(ChameleonVQVAEConfig()).eval()

    def encode(image: Any) -> Any:
        height, width = (side // 16 for side in image.shape[2:])
        return network.encode(image * 2 - 1).image_tokens.reshape(-1, 1, height, width)

    return Theirs(network, variant.sources[0].keys, encode, None, ("state_dict",))


def vq_model(variant: Any) -> Theirs:
    from diffusers import VQModel

    from zoo.checkpoints import KeyMap

    levels = len(variant.config["multipliers"])
    network = VQModel(
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=tuple(128 * multiplier for multiplier in variant.config["multipliers"]),
        layers_per_block=2,
        latent_channels=variant.config["dim"],
        num_vq_embeddings=variant.spec.codebook_sizes[0],
        lookup_from_codebook=True,
    ).eval()

    def encode(image: Any) -> Any:
        latent = network.encode(image * 2 - 1).latents
        return network.quantize(latent)[2][2].reshape(len(image), 1, *latent.shape[2:])

    def decode(codes: Any) -> Any:
        shape = (len(codes), *codes.shape[2:], variant.config["dim"])
        return (network.decode(codes, force_not_quantize=True, shape=shape).sample / 2 + 0.5).clamp(0, 1)

    rules: list[tuple[Any, ...]] = []
    for theirs, ours, level, resample in (
        ("encoder", "encoder.trunk", "down_blocks", "downsamplers"),
        ("decoder", "decoder", "up_blocks", "upsamplers"),
    ):
        for published, our in (
            (f"{theirs}.{level}.{{i}}.resnets.{{j}}", f"{ours}.levels.{{i}}.blocks.{{j}}"),
            *((f"{theirs}.mid_block.resnets.{i}", f"{ours}.mid.{2 * i}") for i in (0, 1)),
        ):
            rules += [(f"{published}.conv_shortcut.", f"{our}.shortcut."), (f"{published}.", f"{our}.")]
        attention = f"{theirs}.mid_block.attentions.0"
        names = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "out"}
        rules += [(f"{attention}.{name}.", f"{ours}.mid.1.{our}.", as_kernel) for name, our in names.items()]
        rules += [
            (f"{theirs}.{level}.{{i}}.{resample}.0.", f"{ours}.levels.{{i}}.resample."),
            (f"{theirs}.conv_in.", f"{ours}.stem."),
        ]
    rules += [
        ("encoder.conv_norm_out.", "encoder.head.norm."),
        ("encoder.conv_out.", "encoder.head.conv."),
        ("quant_conv.", "encoder.head.project."),
        ("quantize.embedding.weight", "quantizer.codebook"),
        ("post_quant_conv.", "decoder.project."),
        ("decoder.conv_norm_out.", "decoder.norm."),
        ("decoder.conv_out.", "decoder.head."),
    ]
    return Theirs(network, KeyMap(*rules), encode, decode)


def as_kernel(weight: Any) -> Any:
    """Return a matrix as a convolution of one position, and anything else as it is."""
    return weight[:, :, None, None] if weight.ndim == 2 else weight


def vidtok(variant: Any) -> Theirs:
    import torch
    from diffusers import AutoencoderVidTok

    config = variant.config
    last = len(config["multipliers"]) - 1
    network = AutoencoderVidTok(
        ch_mult=list(config["multipliers"]),
        z_channels=len(config["levels"]),
        double_z=False,
        tempo_ds=list(config["halved"]),
        tempo_us=[last - i for i in config["doubled"]],
        regularizer="fsq",
        codebook_size=variant.spec.codebook_sizes[0],
        is_causal=True,
    ).eval()

    def encode(video: Any) -> Any:
        video = video * 2 - 1
        padded = torch.cat([video[:, :, :1].expand(-1, -1, variant.spec.downsample[0] - 1, -1, -1), video], dim=2)
        return network.encode(padded)[1].long()[:, None]

    def decode(codes: Any) -> Any:
        return (network.decode(codes[:, 0].int(), decode_from_indices=True) / 2 + 0.5).clamp(0, 1)

    return Theirs(network, variant.sources[-1].keys, encode, decode)


PEERS = (
    Peer("transformers", "wavtokenizer-large-unify-600-24k", (5 * 24000,), wavtokenizer),
    Peer("transformers", "mimi", (5 * 24000,), mimi),
    Peer("transformers", "emu3-vision", (128, 128), emu3),
    Peer("transformers", "chameleon-vqgan", (256, 256), chameleon),
    Peer("diffusers", "ldm-vq-f4", (256, 256), vq_model),
    Peer("diffusers", "vidtok-fsq-causal-488-32768-v1.1", (5, 64, 64), vidtok),
    Peer("snac", "snac-24khz", (5 * 24000,), snac),
)


def redraw(network: Any) -> None:
    """Draw weights that keep the variance of what passes through, so that codes differ and none is a tie."""
    import torch

    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if name.endswith(("embed", "embed_sum", "embedding.weight", "codebook.weight")):
                tensor.normal_()
            elif name.endswith(("cluster_usage", "cluster_size", "original0")):
                tensor.fill_(1.0)
            elif tensor.ndim > 1 and tensor.is_floating_point() and "alpha" not in name:
                tensor.normal_(std=tensor[0].numel() ** -0.5)


def ours_of(variant: Any, theirs: Theirs) -> Any:
    """Return our network with their weights; where they have no decoder, it keeps its own."""
    from zoo.checkpoints import assign

    tokenizer = variant.build()
    expected = tokenizer.state_dict()
    state = {published_name(key, theirs): tensor for key, tensor in theirs.network.state_dict().items()}
    if theirs.decode is None:
        state |= {theirs.keys.published_key(ours)[0]: expected[ours] for ours in expected if ours.startswith("decoder")}
    for step in theirs.layout:
        state = {step: state}
    assign(tokenizer, theirs.keys.convert(state, expected, theirs.network.__class__.__name__))
    return tokenizer.eval()


def published_name(key: str, theirs: Theirs) -> str:
    """Return the name in a published file of a tensor of their network."""
    for beginning, published in theirs.renamed:
        if key.startswith(beginning):
            return published + key.removeprefix(beginning)
    return key


def machine_peak() -> float:
    """Return the floating-point operations a second of the faster of a matrix product and a convolution."""
    import torch
    from torch import nn

    matrix, image = torch.randn(2048, 2048), torch.randn(1, 128, 256, 256).to(memory_format=torch.channels_last)
    convolution = nn.Conv2d(128, 128, 3, padding=1).to(memory_format=torch.channels_last)
    work = {
        2 * 2048**3: lambda: matrix @ matrix,
        2 * 9 * 128**2 * 256**2: lambda: convolution(image),
    }
    return max(count / min(seconds for seconds, _ in (timed(call) for _ in range(5))) for count, call in work.items())


def product_flops(rows: Any, weight: Any, *_: Any, out_shape: Any = None) -> int:
    """Return the operations of a product of the shapes `[rows, channels]` and `[channels_out, channels]`."""
    return 2 * math.prod(rows) * int(weight[0])


def timed(call: Callable[[], object]) -> tuple[float, float]:
    """Return processor seconds and seconds by the clock of one call."""
    wall, processor = time.perf_counter(), time.process_time()
    call()
    return time.process_time() - processor, time.perf_counter() - wall


def measure(peer: Peer, batch: int, rounds: int) -> dict[str, Any]:
    """Return the figures of both directions at one batch size, in this process."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    import zoo
    from zoo.bench.machine import PeakMemory

    counted = {torch.ops.mkldnn._linear_pointwise: product_flops}

    torch.set_num_threads(1)
    zoo.keep_freed_memory()
    torch.manual_seed(0)
    variant = zoo.info(peer.variant)
    theirs = peer.build(variant)
    redraw(theirs.network)
    ours = ours_of(variant, theirs)
    signal = ours.modality.example(variant.spec, batch, peer.size, torch.Generator().manual_seed(0))
    results: dict[str, Any] = {"package": peer.package, "variant": peer.variant, "batch": batch, "size": peer.size}
    with torch.inference_mode():
        with FlopCounterMode(display=False, custom_mapping=counted) as counter:
            ours.encode(signal)
        work = {"encode": counter.get_total_flops()}
        expected = theirs.encode(signal)
        results["distinct_codes"] = len(expected.unique())
        ways: dict[str, dict[str, Callable[[], object]]] = {
            "encode": {"ours": lambda: ours.encode(signal), "theirs": lambda: theirs.encode(signal)}
        }
        decode = theirs.decode
        if decode is not None:
            ways["decode"] = {"ours": lambda: ours.decode(expected), "theirs": lambda: decode(expected)}
            with FlopCounterMode(display=False, custom_mapping=counted) as counter:
                ours.decode(expected)
            work["decode"] = counter.get_total_flops()
        zoo.for_inference(ours)
        results["equal_codes"] = float((ours.encode(signal) == expected).float().mean())
        peak = machine_peak()
        for direction, calls in ways.items():
            figures: dict[str, dict[str, float]] = {}
            for way, call in calls.items():
                memory = PeakMemory("cpu")
                with memory.watch():
                    call()
                figures[way] = {"bytes": memory.bytes, "processor": math.inf, "wall": math.inf}
            for _ in range(rounds):
                for way, call in calls.items():
                    processor, wall = timed(call)
                    figures[way]["processor"] = min(figures[way]["processor"], processor)
                    figures[way]["wall"] = min(figures[way]["wall"], wall)
            results[direction] = {
                **figures,
                "ratio": figures["theirs"]["processor"] / figures["ours"]["processor"],
                "share_of_peak": work[direction] / figures["ours"]["processor"] / peak,
            }
    return results


def geometric_mean(results: Mapping[str, Any]) -> float:
    logs = [math.log(case[way]["ratio"]) for case in results["cases"] for way in ("encode", "decode") if way in case]
    return math.exp(sum(logs) / len(logs))


def markdown(results: Mapping[str, Any]) -> str:
    """Return the table that the README and the documentation show."""
    lines = [
        "| network, compared with | direction | batch | ms, ours | ms, theirs | theirs / ours | MiB, ours "
        "| MiB, theirs | share of peak |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for case in results["cases"]:
        for way in ("encode", "decode"):
            if way in case:
                figures = case[way]
                ours, theirs = figures["ours"], figures["theirs"]
                lines.append(
                    f"| `{case['variant']}`, {case['package']} | {way} | {case['batch']} "
                    f"| {1000 * ours['processor']:.0f} | {1000 * theirs['processor']:.0f} | {figures['ratio']:.2f} "
                    f"| {ours['bytes'] / 2**20:.0f} | {theirs['bytes'] / 2**20:.0f} "
                    f"| {100 * figures['share_of_peak']:.0f} % |"
                )
    equal = min(case["equal_codes"] for case in results["cases"])
    lines += ["", f"Geometric mean of the ratios: {geometric_mean(results):.2f}. Equal codes: at least {equal:.4%}."]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = [peer.variant for peer in PEERS]
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=names, default=names, help="our variants")
    parser.add_argument("--batches", type=int, nargs="+", default=BATCHES, help="signals that are coded at once")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each call, of which the shortest counts")
    parser.add_argument("--json", type=Path, metavar="FILE", default=RESULTS, help="file of the figures")
    parser.add_argument("--markdown", action="store_true", help="print the table of FILE and measure nothing")
    parser.add_argument("--measure", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    chosen = [peer for peer in PEERS if peer.variant in arguments.only]
    if arguments.measure:
        print(json.dumps(measure(chosen[0], arguments.measure, arguments.rounds)))
        return
    if arguments.markdown:
        print(markdown(json.loads(arguments.json.read_text())))
        return
    if arguments.json == RESULTS and len(chosen) < len(PEERS):
        parser.error("--only needs --json, so that the figures of all networks stay")

    from zoo.bench.machine import machine_facts, versions

    results: dict[str, Any] = {"machine": machine_facts("cpu"), "versions": versions(), "cases": []}
    has_failed = False
    for peer in chosen:
        for batch in arguments.batches:
            options = ("--only", peer.variant, "--measure", batch, "--rounds", arguments.rounds)
            try:
                case = printed_by(__file__, *options)
            except RuntimeError as error:  # of one case: the others are worth having
                print(error, file=sys.stderr)
                has_failed = True
                continue
            results["cases"].append(case)
            for way in ("encode", "decode"):
                if way in case:
                    print(f"{peer.variant} {way} batch {batch}: {case[way]['ratio']:.2f}", flush=True)
        arguments.json.write_text(json.dumps(results, indent=2) + "\n")
    print(markdown(results))
    sys.exit(has_failed)


if __name__ == "__main__":
    main()

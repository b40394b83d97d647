"""Tokenizers with other families of quantizers in the bench: networks of small form, saved to a folder."""

import pytest

import zoo

FAMILIES = {"lfq": "open-magvit2-256", "ibq": "ibq-16384", "multi-scale-vq": "var-vq-16-4096"}


@pytest.mark.parametrize("family", list(FAMILIES))
def test_a_saved_tokenizer_of_any_family_is_measured(family, image_folder, tmp_path):
    tokenizer = zoo.create(FAMILIES[family], small=True)
    tokenizer.save_pretrained(tmp_path / "saved")
    assert tokenizer.spec.quantizer == family
    size = 32 if tokenizer.spec.variable_size else tokenizer.spec.sizes[0][0]
    out = tmp_path / "out"
    results = zoo.bench([tmp_path / "saved"], image_folder, out=out, metrics=["psnr"], baselines=False, resolution=size)
    for point in results.points:
        assert len(point.items) == 4
        assert all(0 < figure < 60 for item in point.items if (figure := item.metrics["psnr"]) is not None)
    bits = tokenizer.spec.bits((size, size))
    assert results.points[-1].items[0].bytes == -(-bits // 8)

"""The embedded world: what a drawn scene shows is what its labels say."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ddmd_bench.backends.shapes.networks import MAX_WORDS, to_images, to_latents, tokenize
from ddmd_bench.backends.shapes.scenes import (
    ATTRIBUTES,
    BACKGROUNDS,
    COLORS,
    PLACES,
    SIZES,
    draw_labels,
    held_out_labels,
    labels_of,
    prompt_of,
    render,
    seen_labels,
)
from ddmd_bench.errors import BenchError

NUM = 400
FILLED = ("circle", "square", "triangle", "star", "cross")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def scenes(num: int = NUM, **wanted: str) -> Tensor:
    """Scenes in [0, 1], [num, 3, 32, 32], whose named attributes hold the given values."""
    words = {"shape": "circle", "color": "red", "size": "large", "place": "in the centre"}
    words |= {"background": "black", **wanted}
    row = [ATTRIBUTES[name].index(words[name]) for name in ATTRIBUTES]
    return (render(torch.tensor([row] * num), generator()) + 1) / 2


def covered(images: Tensor) -> Tensor:
    """Whether a pixel shows a red object on black, [B, 32, 32]."""
    return images[:, 0] > 0.45


def test_drawing_is_seeded() -> None:
    labels = draw_labels(16, generator(3))
    assert torch.equal(labels, draw_labels(16, generator(3)))
    assert torch.equal(render(labels, generator(4)), render(labels, generator(4)))
    assert not torch.equal(render(labels, generator(4)), render(labels, generator(5)))


def test_a_scene_with_a_generator_of_its_own_is_drawn_alike_in_any_company() -> None:
    labels = draw_labels(9, generator())
    together = render(labels, [generator(k) for k in range(9)])
    for k, scene in enumerate(together):
        torch.testing.assert_close(render(labels[k : k + 1], generator(k))[0], scene)


def test_values_are_images() -> None:
    images = render(draw_labels(500, generator()), generator(1))
    assert images.shape == (500, 3, 32, 32)
    assert images.dtype == torch.float32
    assert images.min() >= -1
    assert images.max() <= 1
    assert images.isfinite().all()


@pytest.mark.parametrize("background", BACKGROUNDS)
def test_corners_show_the_background(background: str) -> None:
    images = scenes(background=background, size="small")
    corners = torch.stack([images[:, :, y, x] for y in (0, -1) for x in (0, -1)]).mean((0, 1))
    # The light is even on average; near 0 and 1 clipping moves the mean a little.
    torch.testing.assert_close(corners, torch.tensor(BACKGROUNDS[background]), rtol=0, atol=0.03)


@pytest.mark.parametrize("color", COLORS)
@pytest.mark.parametrize("shape", FILLED)
def test_the_middle_of_a_filled_shape_shows_its_colour(shape: str, color: str) -> None:
    images = scenes(100, shape=shape, color=color, background="grey")
    middle = images[:, :, 15:17, 15:17].mean((0, 2, 3))
    torch.testing.assert_close(middle, torch.tensor(COLORS[color]), rtol=0, atol=0.04)


def test_a_ring_is_open_in_the_middle() -> None:
    middle = scenes(shape="ring", background="white")[:, :, 15:17, 15:17].mean((0, 2, 3))
    torch.testing.assert_close(middle, torch.tensor(BACKGROUNDS["white"]), rtol=0, atol=0.03)


@pytest.mark.parametrize("place", PLACES)
def test_objects_lie_where_the_place_says(place: str) -> None:
    inside = covered(scenes(place=place, size="small")).float()
    axis = (torch.arange(32) + 0.5) / 16 - 1
    mass = inside.sum((1, 2))
    x, y = (inside.sum(1) @ axis) / mass, (inside.sum(2) @ axis) / mass
    assert (x.mean().item(), y.mean().item()) == pytest.approx(PLACES[place], abs=0.02)
    # Uniform jitter of +- 0.07.
    assert x.std().item() == pytest.approx(0.07 / 3**0.5, abs=0.01)
    assert y.std().item() == pytest.approx(0.07 / 3**0.5, abs=0.01)


@pytest.mark.parametrize("size", SIZES)
def test_circles_have_the_area_of_their_size(size: str) -> None:
    area = covered(scenes(size=size)).float().sum((1, 2)) / 16**2
    radius = (area / torch.pi).sqrt()
    assert radius.mean().item() == pytest.approx(SIZES[size], abs=0.015)
    assert radius.std().item() == pytest.approx(SIZES[size] * 0.10 / 3**0.5, rel=0.2)


def test_colours_light_and_noise_vary() -> None:
    images = scenes(background="grey", size="small")
    corners = images[:, :, [0, 0, -1, -1], [0, -1, 0, -1]]
    assert corners.mean(2).std(0).min() > 0.02  # colours
    assert (corners[..., 3] - corners[..., 0]).std(0).min() > 0.02  # lighting
    assert (images[:, :, 0, 0] - images[:, :, 0, 1]).std(0).min() > 0.008  # noise of a pixel


# Labels and prompts


def test_one_combination_in_ten_is_held_out() -> None:
    seen = {tuple(row) for row in seen_labels().tolist()}
    held_out = {tuple(row) for row in held_out_labels().tolist()}
    assert (len(seen), len(held_out)) == (1728, 192)
    assert not seen & held_out
    # Every single value is seen: only combinations are new.
    for column, values in enumerate(ATTRIBUTES.values()):
        assert {row[column] for row in seen} == set(range(len(values)))


def test_training_draws_seen_combinations_only() -> None:
    held_out = {tuple(row) for row in held_out_labels().tolist()}
    assert not held_out & {tuple(row) for row in draw_labels(20_000, generator()).tolist()}


def test_prompts_and_labels_invert() -> None:
    rows = torch.cat([seen_labels(), held_out_labels()])
    prompts = [prompt_of(row) for row in rows]
    assert len(set(prompts)) == 1920
    assert [labels_of(prompt) for prompt in prompts] == [tuple(row) for row in rows.tolist()]
    assert labels_of("a large red dog") is None


def test_every_prompt_is_read_whole_and_apart() -> None:
    rows = torch.cat([seen_labels(), held_out_labels()])
    ids = {tuple(tokenize(prompt_of(row))) for row in rows}
    assert len(ids) == 1920
    assert {len(row) for row in ids} == {MAX_WORDS}
    assert tokenize("") == [0] * MAX_WORDS


def test_an_unknown_word_is_named() -> None:
    with pytest.raises(BenchError, match=r"'dragon'.*a \{size\}.*circle"):
        tokenize("a large red dragon in the centre on a black background")


def test_a_prompt_that_is_too_long_is_refused() -> None:
    with pytest.raises(BenchError, match=rf"at most {MAX_WORDS}"):
        tokenize("red " * (MAX_WORDS + 1))


def test_latents_are_the_image_exactly() -> None:
    images = render(draw_labels(4, generator()), generator(1))
    latents = to_latents(images)
    assert latents.shape == (4, 12, 16, 16)
    assert torch.equal(to_images(latents), images)

"""Files that come and go in the embeddings folder are words that come and go."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.journeys.conftest import Place


def usable_words(place: Place) -> set[str]:
    return {word["name"] for word in place.json("words") if word["usable"]}


def test_a_preview_dropped_into_the_folder_is_a_word_and_changes_the_picture(place: Place) -> None:
    run = place.train(
        "carrier", "start.init_text=girl", "train.steps=20", "save.images_every=10", "preview.steps=4", "save.every=10"
    )
    view = place.wait_for(run["id"], lambda view: view.state in ("finished", "failed"))
    assert view.state == "finished"
    shutil.copy(view.preview, place.root / "embeddings" / "from a picture.png")
    place.wait_for_words(lambda names: "from a picture" in names)
    assert usable_words(place) == {"carrier", "from a picture"}

    pictures = []
    for prompt in ("portrait of from a picture", "portrait of girl"):
        output = place.root / f"{len(pictures)}.png"
        place.vocable("generate", prompt, "-o", str(output), "--steps", "4")
        pictures.append(output.read_bytes())
    assert pictures[0] != pictures[1]

    (place.root / "embeddings" / "from a picture.png").unlink()
    place.wait_for_words(lambda names: "from a picture" not in names)
    assert usable_words(place) == {"carrier"}


def test_a_new_word_of_one_vector_draws_what_its_init_word_draws(place: Place) -> None:
    place.vocable("new", "my double", "--init", "crown", "--vectors", "1")
    place.wait_for_words(lambda names: "my double" in names)
    pictures = []
    for prompt in (
        "portrait of a girl with my double, blue background",
        "portrait of a girl with crown, blue background",
    ):
        output = place.root / f"{len(pictures)}.png"
        place.vocable("generate", prompt, "-o", str(output), "--steps", "4", "--seed", "7")
        pictures.append(pixels(output))
    assert pictures[0] == pictures[1]


def pixels(path: Path) -> bytes:
    from PIL import Image

    with Image.open(path) as image:
        return image.tobytes()

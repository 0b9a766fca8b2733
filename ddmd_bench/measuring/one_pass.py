"""Scorers side by side: each image is decoded once and handed to all of them.

    one_pass = OnePass(["hps_v21", "image_reward"])
    for answers in one_pass.over(chunks): ...

Images are decoded and preprocessed in threads while the networks run on those before, and a
network begins as soon as a batch is there.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import partial
from itertools import chain, islice, tee
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch

from ddmd_bench.errors import BenchError, said_by
from ddmd_bench.files.decoding import Blank, Unread, Unusable
from ddmd_bench.files.device import is_of_machine, is_out_of_memory, memory_shown
from ddmd_bench.files.embeddings import SHARD_SIZE
from ddmd_bench.files.memory import AtOnce
from ddmd_bench.measuring.encoded_prompts import EncodedPrompts
from ddmd_bench.measuring.sheets import Answer, Item, Prepared, Sheet
from ddmd_bench.scorers import SCORERS, PromptScorer, Scored, batch_size, loaded

if TYPE_CHECKING:
    from torch import Tensor

CHUNK_SIZE = 64  # images that are answered together
# Images that are preprocessed before the networks ask for them. They ask for a batch at once, so
# one of 64 lies ready while the one before is scored, and another for when files come unevenly.
# Of 1,024 px each is 3 MB for a scorer that reads all pixels, 0.6 MB for one that reads 224 px.
AHEAD = 128


class OnePass:
    """Loaded scorers, with the prompts that they have encoded."""

    def __init__(
        self,
        names: Sequence[str],
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
        encoded_prompts: Callable[[str], Path] | None = None,
    ) -> None:
        """`encoded_prompts` says where a scorer's are kept; without it, in memory."""
        self.models = {name: loaded(name, device, dtype) for name in names}
        self.encoded_prompts = {
            name: EncodedPrompts(
                model,
                encoded_prompts(name) if encoded_prompts and SCORERS[name].reads_prompts else None,
            )
            for name, model in self.models.items()
        }
        self.device, self.dtype = device, dtype
        self.at_once = {
            name: AtOnce(batch_size(name, device), f"images in scorer {name}") for name in names
        }
        # Scorers that the others left no memory for one image, or one prompt: each needs a pass
        # of its own, and has no answers from here on.
        self.set_aside: list[str] = []
        # Chunks whose answers stay on the device while the next is handed over: reading one waits
        # for the GPU, which would then have no work.
        self.read_later = 0 if device == "cpu" else 1

    def let_go(self) -> None:
        """Hold no scorer any more."""
        self.models.clear()
        self.encoded_prompts.clear()

    def read(self, prompts: Mapping[str, Sequence[str]]) -> None:
        """Encode each scorer's prompts; those that are kept cost nothing."""
        for name, to_read in prompts.items():
            with self._or_set_aside(name):
                for start in range(0, len(to_read), SHARD_SIZE):
                    self.encoded_prompts[name].of(to_read[start : start + SHARD_SIZE])

    @contextmanager
    def _or_set_aside(self, scorer: str) -> Iterator[None]:
        """Set a scorer aside where memory runs out; one that is alone is an error."""
        try:
            yield
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            if len(self.models) == 1:
                raise BenchError(too_large(scorer, self.device, self.dtype)) from None
            self.set_aside.append(scorer)

    def over(self, chunks: Iterable[Sequence[Item]]) -> Iterator[dict[str, Answer]]:
        """Each chunk's answers by scorer; the images of one prompt must be in one chunk."""
        to_answer, to_prepare = tee(chunks)
        launched: deque[list[Sheet]] = deque()
        with closing(_ahead(self._prepared, chain.from_iterable(to_prepare))) as prepared:
            for chunk in to_answer:
                launched.append(self._launched(chunk, islice(prepared, len(chunk))))
                if len(launched) > self.read_later:
                    yield self._answers(launched.popleft())
        for sheets in launched:
            yield self._answers(sheets)

    def _answers(self, sheets: Sequence[Sheet]) -> dict[str, Answer]:
        """What the scorers say, off the device, by scorer."""
        whole = [sheet for sheet in sheets if sheet.scorer not in self.set_aside]
        return {sheet.scorer: sheet.finished() for sheet in whole}

    def _prepared(self, item: Item) -> Prepared:
        asked = [n for n in self.models if n not in self.set_aside and item.asks(n)]
        if not asked:
            return Prepared({}, {})
        prepared = Prepared({}, {})
        try:
            image = item.open()
        except Blank as error:
            image, without = error.image, [n for n in asked if not SCORERS[n].of_blank]
            prepared.reasons.update(dict.fromkeys(without, str(error)))
        except Unusable as error:
            return Prepared({}, dict.fromkeys(asked, str(error)), isinstance(error, Unread))
        for name in asked:
            if name in prepared.reasons:
                continue
            try:
                prepared.inputs[name] = self.models[name].preprocess(image)
            except Exception as error:  # one image must not cost the others
                if is_of_machine(error):
                    raise  # which says nothing of the image
                prepared.reasons[name] = said_by(error)
        return prepared

    def _launched(self, chunk: Sequence[Item], prepared: Iterable[Prepared]) -> list[Sheet]:
        """Every scorer's sheet of a chunk, all batches handed to the networks."""
        sheets = [Sheet(name, chunk) for name in self.models]
        for sheet in self._going_on(sheets):
            asked = [item.prompt for item in chunk if item.asks(sheet.scorer)]
            with self._or_set_aside(sheet.scorer):
                sheet.encoded, sheet.failed = self.encoded_prompts[sheet.scorer].of(asked)
        for row, one in enumerate(prepared):
            for sheet in self._going_on(sheets):
                waiting = sheet.take(row, one)
                if len(waiting) >= self.at_once[sheet.scorer].size:
                    self._score(sheet, waiting)
        for sheet in sheets:
            for waiting in sheet.waiting.values():
                self._score(sheet, waiting)
        for sheet in self._going_on(sheets):
            if SCORERS[sheet.scorer].prompt_columns:
                self._prompt_columns(sheet)
        return sheets

    def _going_on(self, sheets: Sequence[Sheet]) -> Iterator[Sheet]:
        return (sheet for sheet in sheets if sheet.scorer not in self.set_aside)

    def _score(self, sheet: Sheet, waiting: dict[int, Tensor]) -> None:
        """Score all that wait, which lets their inputs go."""
        if sheet.scorer in self.set_aside:
            return
        at_once, scored = self.at_once[sheet.scorer], partial(self._scored, sheet, waiting)
        with self._or_set_aside(sheet.scorer):
            for rows, found in at_once.batches(list(waiting), scored):
                sheet.note(found)
                for row in rows:
                    del waiting[row]

    def _scored(
        self, sheet: Sheet, inputs: Mapping[int, Tensor], rows: Sequence[int]
    ) -> list[tuple[Sequence[int], Scored | str]]:
        """Rows with their scores; halves where the scorer throws, down to a row with the reason."""
        encoded = [sheet.encoded[sheet.prompts[k]] for k in rows]
        batch = torch.stack([inputs[k] for k in rows])
        try:
            return [(rows, self.models[sheet.scorer].score_batch(batch, encoded))]
        except Exception as error:  # one image must not cost the others
            if is_of_machine(error):
                raise  # which says nothing of the images
            if len(rows) == 1:
                return [(rows, said_by(error))]
        half = (len(rows) + 1) // 2
        return [
            one for some in (rows[:half], rows[half:]) for one in self._scored(sheet, inputs, some)
        ]

    def _prompt_columns(self, sheet: Sheet) -> None:
        scorer = cast(PromptScorer, self.models[sheet.scorer])
        alike = (rows for of_prompt in sheet.of_prompts.values() for rows in _alike(of_prompt))
        with self._or_set_aside(sheet.scorer):
            for inputs in alike:
                try:
                    found = scorer.score_prompt(torch.stack([*inputs.values()]))
                except Exception as error:  # one prompt must not cost the others
                    if is_of_machine(error):
                        raise  # which says nothing of its images
                    sheet.answer.missing |= dict.fromkeys(inputs, said_by(error))
                    continue
                for column, value in found.items():
                    sheet.answer.put_column(column, list(inputs), value)
        sheet.of_prompts.clear()


def _alike(inputs: Mapping[int, Tensor]) -> list[dict[int, Tensor]]:
    """Those of one shape together, by row."""
    found: dict[tuple[int, ...], dict[int, Tensor]] = defaultdict(dict)
    for row, tensor in inputs.items():
        found[tuple(tensor.shape)][row] = tensor
    return list(found.values())


def too_large(scorer: str, device: str, dtype: torch.dtype) -> str:
    """What to do with a scorer that not even alone has the memory that it needs."""
    asked = str(dtype).removeprefix("torch.")
    halved = "set scoring.dtype (--dtype) to bfloat16, " if dtype == torch.float32 else ""
    columns = ", ".join((*SCORERS[scorer].columns, *SCORERS[scorer].prompt_columns))
    left_out = f"its metrics ({columns})" if columns else "the metrics that need it"
    return (
        f"scorer {scorer} alone, in {asked}, does not fit into the memory of "
        f"{memory_shown(device)}. End what else fills it, {halved}take a larger one, or leave "
        f"out {left_out}"
    )


def preprocessing_threads() -> int:
    """As many as this process may compute with."""
    return max(1, torch.get_num_threads())


def _ahead(
    prepare: Callable[[Item], Prepared], items: Iterable[Item]
) -> Generator[Prepared, None, None]:
    """Every item prepared, in order, up to `AHEAD` of them before they are asked for."""
    pool = ThreadPoolExecutor(preprocessing_threads())
    waiting: deque[Future[Prepared]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(prepare, item))
            if len(waiting) > AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)

"""Every error code that a route answers with: its HTTP status, and what it means in general.

Once published, a code keeps its meaning. The title of an error tells the particular case, with its values.
"""

from __future__ import annotations

CODES: dict[str, tuple[int, str]] = {
    "caption.changed": (409, "A caption is not the one that the change was made for; nothing was written."),
    "dataset.caption": (422, "A caption cannot be read, or is named twice."),
    "dataset.missing": (404, "There is no such dataset."),
    "dataset.picture": (422, "A picture that was named cannot be decoded."),
    "dataset.unreadable": (422, "The system refuses to read the dataset's folder."),
    "disk.full": (507, "There is no room to write what was asked for."),
    "disk.verify": (500, "A file did not read back as it was written, and was not put in place."),
    "disk.write": (500, "The system refuses to write a file or folder."),
    "embedding.absent": (422, "The file holds no embedding, or none of that name."),
    "embedding.exists": (409, "There is a word of this name already."),
    "embedding.halves": (422, "Two files are not the halves of one word."),
    "embedding.name": (422, "The name cannot be that of a word."),
    "embedding.not_finite": (422, "The vectors hold NaN, infinity or absurdly large numbers."),
    "embedding.several": (409, "The file holds several words and none was chosen."),
    "embedding.shape": (422, "The tensors do not have the shape of a word."),
    "embedding.too_long": (422, "A word of the prompt has more vectors than a chunk of it holds."),
    "embedding.unreadable": (422, "The file is damaged or not what it pretends to be."),
    "embedding.unsupported": (422, "The file is no embedding, or of a kind that is not read or written."),
    "embedding.verify": (422, "The format would not give the word back as it is."),
    "file.absent": (404, "There is no such file."),
    "file.busy": (409, "The file changed while it was read."),
    "file.exists": (409, "There is a file of this name already."),
    "file.kind": (422, "What is there is no regular file."),
    "file.size": (422, "The file is larger than any that is read."),
    "file.unreadable": (422, "The system refuses to read the file."),
    "history.failed": (500, "The history cannot be read or written."),
    "inspector.lost": (422, "The process that read the file crashed, took too long or made no sense."),
    "inspector.start": (503, "No process to read the file could be started."),
    "internal": (500, "A fault of the service; its log holds the details."),
    "job.unknown": (404, "There is no such job; jobs end with the service."),
    "model.unknown": (422, "No base model answers to this name, path or hash."),
    "model.unreadable": (422, "The base model is damaged, incomplete or of a kind that is not supported."),
    "picture.silent": (422, "The picture does not say how it was made."),
    "picture.small": (422, "The picture is too small to carry the word."),
    "queue.full": (503, "Too many jobs wait already."),
    "queue.paused": (503, "The queue is paused or blocked; jobs are not taken."),
    "recipe.invalid": (422, "The recipe has faults; `faults` lists every one with its path."),
    "request.fields": (422, "Fields of the body are wrong; `faults` lists every one with its path."),
    "request.foreign": (403, "The request looks like that of a web page (Origin, Referer, another Host)."),
    "request.invalid": (400, "This is no HTTP request, no JSON object, or a parameter is out of its range."),
    "request.key_reused": (409, "The Idempotency-Key was used for another request."),
    "request.method": (405, "The path exists, but not with this method."),
    "request.peer": (403, "The user at the other end may not use this service."),
    "request.slow": (408, "The request did not arrive in time."),
    "request.too_large": (413, "The body is too long."),
    "request.unknown": (404, "There is nothing at this path."),
    "run.ambiguous": (409, "Several runs begin with this id."),
    "run.name_taken": (409, "Another run that has not ended trains a word of this name."),
    "run.state": (409, "The run's state does not allow this."),
    "run.unknown": (404, "There is no such run."),
    "service.busy": (503, "Too many connections or event streams are open."),
    "service.degraded": (503, "The history cannot be used; nothing can be changed, everything can be read."),
    "service.stopping": (503, "The service is about to stop."),
    "settings.invalid": (422, "`vocable.toml`, or what was to be written into it, has faults."),
    "settings.stale": (412, "The settings are not those that the change was made for."),
    "template.unknown": (404, "There is no such prompt template."),
}


def status_of(code: str) -> int:
    """HTTP status of an error; 500 for a code that is not meant to reach a client."""
    return CODES[code][0] if code in CODES else 500

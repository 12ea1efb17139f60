"""Metrics, a file each; the file name is the metric's name in a record.

Every file says its ``unit``, which direction is ``better`` and what it is ``measured_on``, and has pure
functions on arrays, two by that choice:

- ``tokens``: ``per_token(log_probs, reference, targets)`` maps float64 log-probabilities ``[t, vocab]`` of
the subject
  and of the original, and the token ids ``[t]`` that came, to a number per token ``[t]``;
- ``greedy``: ``per_reply(replies, nats)`` maps the token ids of greedy replies, and their nats a token in the
  original ``[n]`` or None, to a number each ``[n]``, or to None where it needs those;
- ``sentences``: ``per_sentence(embeddings, reference)`` maps two ``[n, hidden]`` to ``[n]``;
- ``pairs``: ``per_pair(left, right)`` maps the embeddings ``[n, hidden]`` of the first and second words to
``[n]``;
- ``labels``: ``per_text(log_probs, reference, targets)`` maps log-probabilities ``[n, labels]`` of a
  classifier and of the original, and the known labels ``[n]`` or None, to ``[n]``, or to None where it needs
  the known ones;

and ``value(rows)``, which makes the metric of ``rows [..., n, k]``, ``[...]``, many sets at once: they are
resampled whole for its interval. A row is a window's ``(sum, tokens, bytes)``, a sentence's or a text's
``(number,)``, or a pair's ``(number, rating)``.
"""

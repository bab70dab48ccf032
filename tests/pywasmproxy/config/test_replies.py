"""`local_reply_config` in configurations."""

from __future__ import annotations

import pytest

from pywasmproxy.config.model_log import Comparison, StatusIs
from pywasmproxy.config.model_manager import BodyFormat, LocalReplies, ReplyMapper
from pywasmproxy.config.model_routes import HeaderAddition
from tests.support.bootstrap import manager, read, refused

STATUS = "filter: {status_code_filter: {comparison: {op: EQ, value: {default_value: 403, runtime_key: k}}}}"
ADDED = "{header: {key: a, value: b}}"
IS_403 = StatusIs(Comparison("EQ", 403))


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ("", LocalReplies()),
        (f"mappers: [{{{STATUS}, status_code: 401}}]", LocalReplies((ReplyMapper(IS_403, 401),))),
        (
            f"mappers: [{{{STATUS}, body: {{inline_string: hi}}, headers_to_add: [{ADDED}]}}]",
            LocalReplies((ReplyMapper(IS_403, body=b"hi", headers=(HeaderAddition("a", "b"),)),)),
        ),
        (
            f"mappers: [{{{STATUS}, body_format_override: {{json_format: {{a: '%RESPONSE_CODE%'}}}}}}]",
            LocalReplies(
                (
                    ReplyMapper(
                        IS_403,
                        format=BodyFormat(json={"a": "%RESPONSE_CODE%"}, content_type="application/json"),
                    ),
                )
            ),
        ),
        (
            "body_format: {text_format: '%LOCAL_REPLY_BODY%', content_type: text/html}",
            LocalReplies(format=BodyFormat("%LOCAL_REPLY_BODY%", content_type="text/html")),
        ),
    ],
)
def test_replies(fields: str, expected: LocalReplies) -> None:
    parts = {"manager": f"local_reply_config: {{{fields}}}"}
    assert manager(**parts).local_replies == expected
    assert read(**parts).warnings == ()


def test_refused() -> None:
    fields = "local_reply_config: {mappers: [{status_code: 401}]}"
    assert refused(manager=fields).message == "ResponseMapper needs 'filter'"
    assert manager().local_replies is None

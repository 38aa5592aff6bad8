"""What a text model brings beside its weights, read from its folder: tokenizer, template, formats, defaults."""

from msgspec import Struct

from speciate.core.errors import InvalidRequest
from speciate.core.request import SamplingParams
from speciate.models.catalog import ModelFolder
from speciate.models.chat_template import ChatTemplate
from speciate.models.fim import FimFormat, find_fim_format
from speciate.models.tokenizer import Tokenizer, read_tokenizer
from speciate.models.tool_formats import ToolFormat, find_tool_format


class TextModel(Struct, frozen=True):
    """Shared by all requests of a model; nothing in it changes."""

    name: str
    tokenizer: Tokenizer
    default_sampling: SamplingParams
    chat_template: ChatTemplate | None = None
    """None for a base model, which knows no conversation."""
    tool_format: ToolFormat | None = None
    fim: FimFormat | None = None
    reasons: bool = False
    """Whether its template knows `<think>` blocks."""

    @property
    def template(self) -> ChatTemplate:
        """Raises InvalidRequest where the model has none."""
        if self.chat_template is None:
            raise InvalidRequest(
                f"{self.name} has no chat template; use /v1/completions, or serve a folder with one.", param="messages"
            )
        return self.chat_template


def load_text_model(folder: ModelFolder) -> TextModel:
    """Raises LoadFailed that names the file."""
    tokenizer, source = read_tokenizer(folder.path), folder.chat_template
    return TextModel(
        name=folder.path.name,
        tokenizer=tokenizer,
        default_sampling=folder.default_sampling,
        chat_template=None if source is None else ChatTemplate(source, folder.special_tokens),
        tool_format=None if source is None else find_tool_format(source),
        fim=find_fim_format(tokenizer),
        reasons=source is not None and "<think>" in source,
    )

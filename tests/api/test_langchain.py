"""LangChain's own integration suite for chat models, against the pocket model on the real server.

Batch tier: the suite is about shapes and behaviour, and a busy test machine must not refuse it for its latency promise.
"""

from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_openai import ChatOpenAI
from langchain_tests.integration_tests import ChatModelIntegrationTests

RUNS_ON = "Asked for a joke, the pocket model fills a free string until max_tokens; test_chat.py covers schemas."


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings:UserWarning")  # of the client, about its own field
@pytest.mark.filterwarnings("ignore:Received a Pydantic BaseModel V1 schema:UserWarning")
class TestChatModel(ChatModelIntegrationTests):
    @pytest.fixture(autouse=True)
    def _served(self, pocket_server):
        self._url = pocket_server.url

    @property
    def chat_model_class(self) -> type[ChatOpenAI]:
        return ChatOpenAI

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {
            "model": "pocket",
            "base_url": f"{self._url}/v1",
            "api_key": "none",
            "temperature": 0,
            "max_tokens": 300,
            "frequency_penalty": 0.7,  # under a schema with free text the pocket model would go on and on
            "service_tier": "flex",
            "stream_usage": True,
        }

    @property
    def model_override_value(self) -> str:
        return "pocket"

    @property
    def supports_json_mode(self) -> bool:
        return True

    @pytest.mark.xfail(reason="The pocket model does not read keys from prose; a schema binds it.")
    def test_json_mode(self, model: BaseChatModel) -> None:
        super().test_json_mode(model)

    @pytest.mark.xfail(reason="The pocket model has not learnt to copy Chinese; test_chat.py covers Unicode arguments.")
    def test_unicode_tool_call_integration(self, model: BaseChatModel, **more: Any) -> None:
        super().test_unicode_tool_call_integration(model, **more)

    @pytest.mark.xfail(reason=RUNS_ON)
    @pytest.mark.parametrize("schema_type", ["pydantic", "typeddict", "json_schema"])
    def test_structured_output(self, model: BaseChatModel, schema_type: str) -> None:
        super().test_structured_output(model, schema_type)

    @pytest.mark.xfail(reason=RUNS_ON)
    @pytest.mark.parametrize("schema_type", ["pydantic", "typeddict", "json_schema"])
    async def test_structured_output_async(self, model: BaseChatModel, schema_type: str) -> None:
        await super().test_structured_output_async(model, schema_type)

    @pytest.mark.xfail(reason=RUNS_ON)
    def test_structured_output_pydantic_2_v1(self, model: BaseChatModel) -> None:
        super().test_structured_output_pydantic_2_v1(model)

    @pytest.mark.xfail(reason=RUNS_ON)
    def test_structured_output_optional_param(self, model: BaseChatModel) -> None:
        super().test_structured_output_optional_param(model)

"""Drives the protocol's official Python client: one JSON request a line on standard input, one JSON answer a line.

Arguments: the agent's address, the binding, and the bearer token if there is one.
Requests: {"op": NAME, "request": MESSAGE AS PROTOJSON, "stream": WHICH}. Answers: {"ok": ...} or {"error": {"type", "message"}}.
"""

import asyncio
import json
import sys

import grpc
import httpx
from a2a.client import ClientConfig
from a2a.client.card_resolver import A2ACardResolver
from a2a.client.client import ClientCallContext
from a2a.client.client_factory import ClientFactory
from a2a.types import a2a_pb2 as pb
from google.protobuf.json_format import MessageToDict, ParseDict

UNARY = {
    "get_task": pb.GetTaskRequest,
    "list_tasks": pb.ListTasksRequest,
    "cancel_task": pb.CancelTaskRequest,
    "create_task_push_notification_config": pb.TaskPushNotificationConfig,
    "get_task_push_notification_config": pb.GetTaskPushNotificationConfigRequest,
    "list_task_push_notification_configs": pb.ListTaskPushNotificationConfigsRequest,
    "delete_task_push_notification_config": pb.DeleteTaskPushNotificationConfigRequest,
    "get_extended_agent_card": pb.GetExtendedAgentCardRequest,
}


async def main() -> None:
    url, binding, *rest = sys.argv[1:]
    headers = {"Authorization": f"Bearer {rest[0]}"} if rest else {}
    http = httpx.AsyncClient(headers=headers, timeout=60)
    card = await A2ACardResolver(http, url).get_agent_card()

    def client(streaming: bool):
        config = ClientConfig(
            streaming=streaming,
            httpx_client=http,
            grpc_channel_factory=grpc.aio.insecure_channel,
            supported_protocol_bindings=[binding],
            use_client_preference=True,
        )
        return ClientFactory(config).create(card)

    waiting, streaming = client(False), client(True)
    context = ClientCallContext(service_parameters={key.lower(): value for key, value in headers.items()})
    streams = {}

    async def answer(asked: dict):
        op, request, stream = asked["op"], asked.get("request", {}), asked.get("stream")
        if op == "card":
            return MessageToDict(card)
        if op == "send":
            shown = waiting.send_message(ParseDict(request, pb.SendMessageRequest()), context=context)
            return MessageToDict(await anext(shown))
        if op == "stream":
            streams[stream] = streaming.send_message(ParseDict(request, pb.SendMessageRequest()), context=context)
            return None
        if op == "subscribe":
            streams[stream] = streaming.subscribe(ParseDict(request, pb.SubscribeToTaskRequest()), context=context)
            return None
        if op == "subscribe_all":
            shown = streaming.subscribe(ParseDict(request, pb.SubscribeToTaskRequest()), context=context)
            return [MessageToDict(one) async for one in shown]
        if op == "next":
            shown = await anext(streams[stream], None)
            return shown and MessageToDict(shown)
        if op == "rest":
            return [MessageToDict(shown) async for shown in streams[stream]]
        called = await getattr(streaming, op)(ParseDict(request, UNARY[op]()), context=context)
        return MessageToDict(called) if called else None

    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        try:
            said = {"ok": await answer(json.loads(line))}
        except Exception as error:  # noqa: BLE001: whatever it is, the test is to see it
            said = {"error": {"type": type(error).__name__, "message": str(error)}}
        print(json.dumps(said), flush=True)


asyncio.run(main())

"""Holds an agent against what the protocol's specification requires, over each binding, by bare HTTP and bare gRPC.

Argument: the agent's address. The agent is that of `kit.toml`: the beginning of a message's id says what is to be done with it.
For each requirement and binding one line of JSON: {"section", "level", "requirement", "kit", "binding"}, and "why" if it does
not hold. `kit` is what the official test kit (https://github.com/a2aproject/a2a-tck) calls it.
"""

import base64
import json
import re
import sys
import threading
import traceback
import uuid
from concurrent.futures import ThreadPoolExecutor

import grpc
import httpx
from a2a.types import a2a_pb2 as pb
from a2a.types import a2a_pb2_grpc
from google.api import field_behavior_pb2
from google.protobuf.json_format import MessageToDict, ParseDict
from google.rpc import error_details_pb2, status_pb2

ADDRESS = sys.argv[1]
BASE = f"http://{ADDRESS}"
VERSION = "1.0"
PATIENCE = 60
DOMAIN = "a2a-protocol.org"
ERROR_INFO = "type.googleapis.com/google.rpc.ErrorInfo"

# Section 5.4, and what the standard errors of JSON-RPC are elsewhere: the code, the status of HTTP, that of gRPC.
ERRORS = {
    "TASK_NOT_FOUND": (-32001, 404, "NOT_FOUND"),
    "TASK_NOT_CANCELABLE": (-32002, 400, "FAILED_PRECONDITION"),
    "PUSH_NOTIFICATION_NOT_SUPPORTED": (-32003, 400, "FAILED_PRECONDITION"),
    "UNSUPPORTED_OPERATION": (-32004, 400, "FAILED_PRECONDITION"),
    "CONTENT_TYPE_NOT_SUPPORTED": (-32005, 400, "INVALID_ARGUMENT"),
    "VERSION_NOT_SUPPORTED": (-32009, 400, "FAILED_PRECONDITION"),
    "INVALID_PARAMS": (-32602, 400, "INVALID_ARGUMENT"),
}
TERMINAL = {"COMPLETED", "FAILED", "CANCELED", "REJECTED"}

METHODS = {
    "SendMessage": (pb.SendMessageRequest, pb.SendMessageResponse),
    "SendStreamingMessage": (pb.SendMessageRequest, pb.StreamResponse),
    "GetTask": (pb.GetTaskRequest, pb.Task),
    "ListTasks": (pb.ListTasksRequest, pb.ListTasksResponse),
    "CancelTask": (pb.CancelTaskRequest, pb.Task),
    "SubscribeToTask": (pb.SubscribeToTaskRequest, pb.StreamResponse),
    "CreateTaskPushNotificationConfig": (pb.TaskPushNotificationConfig, pb.TaskPushNotificationConfig),
    "GetExtendedAgentCard": (pb.GetExtendedAgentCardRequest, pb.AgentCard),
}


def check_shape(body, kind) -> None:
    """Whether JSON is a message of this kind: no field more, and none of the required ones missing (sections 5.5 and 5.7)."""
    ParseDict(body, kind(), ignore_unknown_fields=False)
    check_required(body, kind.DESCRIPTOR, kind.DESCRIPTOR.name)


def check_required(body, descriptor, path) -> None:
    required = field_behavior_pb2.REQUIRED
    for field in descriptor.fields:
        behavior = field.GetOptions().Extensions[field_behavior_pb2.field_behavior]
        where = f"{path}.{field.json_name}"
        if field.json_name not in body:
            assert field.name not in body or field.name == field.json_name, f"{path} has a field in snake_case: {field.name}"
            assert required not in behavior, f"{where} is required and missing"
            continue
        kind, value = field.message_type, body[field.json_name]
        if kind is None or kind.full_name.startswith("google.protobuf") or kind.GetOptions().map_entry:
            continue
        for one in value if isinstance(value, list) else [value]:
            check_required(one, kind, where)


class Refusal(Exception):
    """An error that the agent answered with: its code or status, and the ErrorInfo that came with it."""

    def __init__(self, binding, code, message, info, raw=None):
        super().__init__(f"{code} {message} {info}")
        self.binding, self.code, self.message, self.info, self.raw = binding, code, message, info, raw

    def check(self, name) -> None:
        rpc, http, status = ERRORS[name]
        expected = {"JSONRPC": rpc, "HTTP+JSON": http, "GRPC": status}[self.binding]
        assert self.code == expected, f"{name} is {expected}, and not {self}"
        assert isinstance(self.message, str) and self.message, "an error says what it is"
        assert self.info and self.info.get("domain") == DOMAIN, f"{name} comes with ErrorInfo, and not with {self.info}"
        assert self.info.get("reason") == name, f"{name} is the reason, and not {self.info}"


def info_of(details):
    return next((detail for detail in details or [] if detail.get("@type") == ERROR_INFO), None)


def events_of(response):
    """The events of a stream, as they come."""
    for line in response.iter_lines():
        if line.startswith("data:"):
            yield json.loads(line[len("data:") :])


class Http:
    def __init__(self):
        self.http = httpx.Client(base_url=BASE, timeout=PATIENCE)

    def call(self, method, request, headers=None):
        response = self.http.send(self.request(method, request, headers))
        body = self.result(response, json.loads(response.content) if response.content else {})
        check_shape(body, METHODS[method][1])
        return body

    def stream(self, method, request):
        response = self.http.send(self.request(method, request, None), stream=True)
        kind = response.headers.get("content-type", "")
        if not kind.startswith("text/event-stream"):
            response.read()
            self.result(response, response.json())
            raise AssertionError(f"a stream is text/event-stream, and not {kind}")
        return Stream(self.events(response), response.close)

    def events(self, response):
        for event in events_of(response):
            shown = self.result(response, event)
            check_shape(shown, pb.StreamResponse)
            yield shown


class JsonRpc(Http):
    name = "JSONRPC"

    def request(self, method, request, headers):
        self.id = str(uuid.uuid4())
        body = {"jsonrpc": "2.0", "id": self.id, "method": method, "params": request}
        return self.http.build_request("POST", "/", json=body, headers={"A2A-Version": VERSION} if headers is None else headers)

    def result(self, response, body):
        assert body.get("jsonrpc") == "2.0" and "id" in body, f"an answer is that of JSON-RPC 2.0, and not {body}"
        if "error" in body:
            error = body["error"]
            assert set(error) <= {"code", "message", "data"}, f"an error has a code, a message and data: {error}"
            raise Refusal(self.name, error["code"], error["message"], info_of(error.get("data")), response)
        assert body["id"] == self.id, "an answer has the id of its request"
        return body["result"]


class Rest(Http):
    name = "HTTP+JSON"

    def request(self, method, request, headers):
        headers = {"A2A-Version": VERSION} if headers is None else headers
        request = dict(request)
        if method in ("SendMessage", "SendStreamingMessage"):
            path = "/message:send" if method == "SendMessage" else "/message:stream"
            return self.http.build_request("POST", path, json=request, headers=headers)
        if method == "ListTasks":
            named = {name: str(value).lower() if isinstance(value, bool) else value for name, value in request.items()}
            return self.http.build_request("GET", "/tasks", params=named, headers=headers)
        if method == "GetExtendedAgentCard":
            return self.http.build_request("GET", "/extendedAgentCard", headers=headers)
        if method == "CreateTaskPushNotificationConfig":
            path = f"/tasks/{request.pop('taskId')}/pushNotificationConfigs"
            return self.http.build_request("POST", path, json=request, headers=headers)
        path = f"/tasks/{request.pop('id')}"
        if method == "GetTask":
            return self.http.build_request("GET", path, params=request, headers=headers)
        action = {"CancelTask": "cancel", "SubscribeToTask": "subscribe"}[method]
        return self.http.build_request("POST", f"{path}:{action}", headers=headers)

    def result(self, response, body):
        if response.status_code >= 400:
            error = body["error"]
            assert error["code"] == response.status_code, "the code of an error is the status of its answer"
            assert response.headers["content-type"].startswith("application/json"), response.headers
            assert isinstance(error["status"], str), error
            raise Refusal(self.name, response.status_code, error["message"], info_of(error["details"]), response)
        return body


class Grpc:
    name = "GRPC"

    def __init__(self):
        url = next(one["url"] for one in card()["supportedInterfaces"] if one["protocolBinding"] == "GRPC")
        self.stub = a2a_pb2_grpc.A2AServiceStub(grpc.insecure_channel(url))

    def begin(self, method, request, headers):
        headers = {"A2A-Version": VERSION} if headers is None else headers
        metadata = [(name.lower(), value) for name, value in headers.items()]
        return getattr(self.stub, method)(ParseDict(request, METHODS[method][0]()), metadata=metadata, timeout=PATIENCE)

    def call(self, method, request, headers=None):
        try:
            return self.told(self.begin(method, request, headers))
        except grpc.RpcError as error:
            raise self.refusal(error) from None

    def stream(self, method, request):
        call = self.begin(method, request, None)

        def events():
            try:
                for shown in call:
                    yield self.told(shown)
            except grpc.RpcError as error:
                if error.code() != grpc.StatusCode.CANCELLED:
                    raise self.refusal(error) from None

        stream = Stream(events(), call.cancel)
        # What is refused is refused at the first event, here as over HTTP.
        stream.peek()
        return stream

    @staticmethod
    def told(message):
        assert message.IsInitialized()
        if isinstance(message, (pb.SendMessageResponse, pb.StreamResponse)):
            assert message.WhichOneof("payload"), "an answer holds something"
        told = MessageToDict(message)
        if isinstance(message, pb.ListTasksResponse):
            told = {"tasks": [], "nextPageToken": "", "totalSize": 0, **told}
        return told

    def refusal(self, error):
        info = None
        for key, value in error.trailing_metadata() or []:
            if key == "grpc-status-details-bin":
                for detail in status_pb2.Status.FromString(value).details:
                    if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
                        found = error_details_pb2.ErrorInfo.FromString(detail.value)
                        info = {"reason": found.reason, "domain": found.domain}
        return Refusal(self.name, error.code().name, error.details(), info)


class Stream:
    """What a stream shows, and a way to leave it."""

    def __init__(self, events, close):
        self.events, self.close, self.ready = events, close, []

    def peek(self):
        self.ready.append(next(self.events))

    def __iter__(self):
        return self

    def __next__(self):
        return self.ready.pop(0) if self.ready else next(self.events)


def card():
    return httpx.get(f"{BASE}/.well-known/agent-card.json", timeout=PATIENCE).json()


def message(prefix, text="Hello", **fields):
    """A message whose id begins so. The id is always the same, as it is in the kit: each makes a task of its own."""
    return {"messageId": f"{prefix}-fixed", "role": "ROLE_USER", "parts": [{"text": text}], **fields}


def send(binding, prefix, text="Hello", configuration=None, **fields):
    request = {"message": message(prefix, text, **fields)}
    if configuration is not None:
        request["configuration"] = configuration
    return binding.call("SendMessage", request)


def task_of(binding, prefix, wanted=None, **fields):
    task = send(binding, prefix, **fields)["task"]
    assert wanted is None or state(task) == wanted, f"{wanted} is expected, and not {state(task)}"
    return task


def state(shown):
    """The state that a task or an update is in."""
    return shown["status"]["state"].removeprefix("TASK_STATE_")


def state_shown(event):
    shown = event.get("task") or event.get("statusUpdate")
    return state(shown) if shown else None


def refused(name, ask):
    """Holds an error against its name; any error will do where there is none."""
    try:
        answer = ask()
        if isinstance(answer, Stream):
            answer = list(answer)
    except Refusal as refusal:
        if name:
            refusal.check(name)
        return refusal
    raise AssertionError(f"{name or 'an error'} is expected, and not {answer}")


def kit_id(name):
    return f"tck-{name}-{uuid.uuid4().hex[:8]}"


REQUIREMENTS = []
EVERYWHERE = ("JSONRPC", "HTTP+JSON", "GRPC")
AS_JSON = ("JSONRPC", "HTTP+JSON")


def requires(section, level, kit, requirement, bindings=EVERYWHERE):
    def keep(check):
        REQUIREMENTS.append((section, level, kit, requirement, bindings, check))
        return check

    return keep


class NotAsked(Exception):
    """The agent's card says that this is none of what it does."""


# 3.1.1 to 3.1.6: the operations.


@requires("3.1.1", "MUST", "CORE-SEND-001", "a message is answered with a task or a message")
def _(binding):
    assert set(send(binding, "tck-complete-task")) == {"task"}


@requires("3.1.1", "MUST", "CORE-SEND-002", "a message to a task that is over is an unsupported operation")
def _(binding):
    for prefix in ("tck-complete-task", "tck-reject-task"):
        task = task_of(binding, prefix)
        assert state(task) in TERMINAL
        refused("UNSUPPORTED_OPERATION", lambda: send(binding, "tck-terminal", taskId=task["id"]))


@requires("3.1.1", "MUST", "CORE-SEND-003", "a part of a media type that the agent does not take is refused")
def _(binding):
    part = {"raw": "dGNr", "mediaType": "application/x-unsupported-tck-type"}
    for method in ("SendMessage", "SendStreamingMessage"):
        sent = {"message": {**message("tck-send-003"), "parts": [part]}}
        ask = binding.call if method == "SendMessage" else binding.stream
        refused("CONTENT_TYPE_NOT_SUPPORTED", lambda: ask(method, sent))


@requires("3.1.2", "MUST", "CORE-STREAM-001", "a message sent for a stream opens one")
def _(binding):
    assert list(binding.stream("SendStreamingMessage", {"message": message("tck-stream-001")}))


@requires("3.1.2", "MUST", "CORE-STREAM-002", "a stream that answers with a message holds it alone")
def _(binding):
    shown = list(binding.stream("SendStreamingMessage", {"message": message("tck-stream-002")}))
    assert [set(event) for event in shown] == [{"message"}], shown


@requires("3.1.2", "MUST", "CORE-STREAM-003", "the stream of a task begins with it, and ends when it is over")
def _(binding):
    shown = list(binding.stream("SendStreamingMessage", {"message": message("tck-stream-003", "Stream task lifecycle")}))
    assert set(shown[0]) == {"task"}, shown
    assert state_shown(shown[-1]) == "COMPLETED", shown
    task = shown[0]["task"]
    for update in (event.get("statusUpdate") or event.get("artifactUpdate") for event in shown[1:]):
        assert update["taskId"] == task["id"] and update["contextId"] == task["contextId"]


@requires("3.1.3", "MUST", "CORE-GET-001", "a task can be got with its state and its artifacts")
def _(binding):
    task = task_of(binding, "tck-artifact-text", "COMPLETED")
    got = binding.call("GetTask", {"id": task["id"]})
    assert (got["id"], state(got), got["artifacts"]) == (task["id"], "COMPLETED", task["artifacts"])


@requires("3.1.3", "MUST", "CORE-GET-002", "a task that there is not is not found")
def _(binding):
    refused("TASK_NOT_FOUND", lambda: binding.call("GetTask", {"id": kit_id("nonexistent")}))
    refused("TASK_NOT_FOUND", lambda: binding.call("GetTask", {"id": "0191d1f0-0000-7000-8000-000000000000"}))


@requires("3.1.4", "MUST", "CORE-LIST-001", "a list holds the tasks of a context and no others")
def _(binding):
    context = kit_id("context")
    ids = {task_of(binding, "tck-complete-task", contextId=context)["id"] for _ in range(2)}
    task_of(binding, "tck-complete-task")
    listed = binding.call("ListTasks", {"contextId": context})
    assert {task["id"] for task in listed["tasks"]} == ids and listed["totalSize"] == 2, listed
    assert all(task["contextId"] == context for task in listed["tasks"])
    nothing = binding.call("ListTasks", {"contextId": kit_id("empty")})
    assert nothing["tasks"] == [] and nothing["totalSize"] == 0 and nothing["nextPageToken"] == "", nothing


@requires("3.1.4", "MUST", "CORE-LIST-002", "a list is had page by page")
def _(binding):
    context = kit_id("context")
    ids = [task_of(binding, "tck-complete-task", contextId=context)["id"] for _ in range(5)]
    seen, token, sizes = [], "", []
    while True:
        page = binding.call("ListTasks", {"contextId": context, "pageSize": 2, **({"pageToken": token} if token else {})})
        assert page["totalSize"] == 5 and page["pageSize"] == 2, page
        sizes.append(len(page["tasks"]))
        seen += [task["id"] for task in page["tasks"]]
        token = page["nextPageToken"]
        if not token:
            break
    assert sizes == [2, 2, 1] and sorted(seen) == sorted(ids), seen
    for wrong in ({"pageSize": 101}, {"pageToken": "no token"}, {"historyLength": -1}):
        refused("INVALID_PARAMS", lambda: binding.call("ListTasks", wrong))


@requires("3.1.4", "MUST", "CORE-LIST-003", "a list begins with the task whose status changed last")
def _(binding):
    context = kit_id("context")
    asking = task_of(binding, "tck-input-required", "INPUT_REQUIRED", contextId=context)
    for _ in range(2):
        task_of(binding, "tck-complete-task", contextId=context)
    send(binding, "tck-complete-task", taskId=asking["id"])
    tasks = binding.call("ListTasks", {"contextId": context})["tasks"]
    times = [task["status"]["timestamp"] for task in tasks]
    assert tasks[0]["id"] == asking["id"] and times == sorted(times, reverse=True), times


@requires("3.1.4", "MUST", "CORE-LIST-004", "the last page has an empty token for the next, and has it")
def _(binding):
    context = kit_id("context")
    task_of(binding, "tck-complete-task", contextId=context)
    assert binding.call("ListTasks", {"contextId": context, "pageSize": 100})["nextPageToken"] == ""


@requires("3.1.4", "MUST", "CORE-LIST-005", "a list leaves artifacts out unless they are asked for")
def _(binding):
    context = kit_id("context")
    task_of(binding, "tck-artifact-text", contextId=context)
    for asked in ({}, {"includeArtifacts": False}):
        listed = binding.call("ListTasks", {"contextId": context, **asked})
        assert "artifacts" not in listed["tasks"][0], listed
    listed = binding.call("ListTasks", {"contextId": context, "includeArtifacts": True})
    assert listed["tasks"][0]["artifacts"], listed


@requires("3.1.5", "MUST", "CORE-CANCEL-001", "a task that is cancelled is given as it then is")
def _(binding):
    task = task_of(binding, "tck-input-required", "INPUT_REQUIRED")
    cancelled = binding.call("CancelTask", {"id": task["id"]})
    assert (cancelled["id"], state(cancelled)) == (task["id"], "CANCELED"), cancelled


@requires("3.1.5", "MUST", "CORE-CANCEL-002", "a task that is over cannot be cancelled")
def _(binding):
    task = task_of(binding, "tck-complete-task", "COMPLETED")
    refused("TASK_NOT_CANCELABLE", lambda: binding.call("CancelTask", {"id": task["id"]}))


@requires("3.1.5", "MUST", "CORE-CANCEL-003", "a task that there is not cannot be cancelled")
def _(binding):
    refused("TASK_NOT_FOUND", lambda: binding.call("CancelTask", {"id": kit_id("nonexistent")}))


@requires("3.1.6", "MUST", "STREAM-SUB-001", "a subscription begins with the task as it stands")
def _(binding):
    task = task_of(binding, "tck-input-required", "INPUT_REQUIRED")
    stream = binding.stream("SubscribeToTask", {"id": task["id"]})
    first = next(stream)
    stream.close()
    assert first["task"]["id"] == task["id"] and state_shown(first) == "INPUT_REQUIRED", first


@requires("3.1.6", "MUST", "STREAM-SUB-002", "a subscription ends when the task is over")
def _(binding):
    task = task_of(binding, "tck-input-required", "INPUT_REQUIRED")
    stream = binding.stream("SubscribeToTask", {"id": task["id"]})
    next(stream)
    send(new(binding), "tck-complete-task", taskId=task["id"])
    assert state_shown(list(stream)[-1]) == "COMPLETED"


@requires("3.1.6", "MUST", "STREAM-SUB-003", "a task that is over cannot be subscribed to")
def _(binding):
    task = task_of(binding, "tck-complete-task", "COMPLETED")
    refused("UNSUPPORTED_OPERATION", lambda: binding.stream("SubscribeToTask", {"id": task["id"]}))


@requires("3.1.6", "MUST", "STREAM-SUB-004", "a task that there is not cannot be subscribed to")
def _(binding):
    refused("TASK_NOT_FOUND", lambda: binding.stream("SubscribeToTask", {"id": kit_id("nonexistent")}))


# 3.2: how an operation answers.


@requires("3.2.2", "MUST", "CORE-EXECUTION-MODE-001", "a message is answered when its task is over, or asks something")
def _(binding):
    late = send(binding, "tck-delayed-complete", configuration={"returnImmediately": False})["task"]
    assert state(late) == "COMPLETED", late
    task = task_of(binding, "tck-input-required", "INPUT_REQUIRED")
    assert state(send(binding, "tck-complete-task", taskId=task["id"])["task"]) == "COMPLETED"
    task_of(binding, "tck-auth-required", "AUTH_REQUIRED")


@requires("3.2.2", "MUST", "CORE-EXECUTION-MODE-002", "a message is answered at once where that is asked for")
def _(binding):
    task = send(binding, "never-ending", configuration={"returnImmediately": True})["task"]
    assert state(task) in {"SUBMITTED", "WORKING"}, task
    assert state(binding.call("CancelTask", {"id": task["id"]})) == "CANCELED"


def told(binding):
    """A task with four messages."""
    task = task_of(binding, "tck-input-required", "INPUT_REQUIRED", text="First")
    return send(binding, "tck-complete-task", "Second", taskId=task["id"])["task"]


@requires("3.2.4", "SHOULD", "CORE-HIST-001", "a task has no history where none is asked for")
def _(binding):
    assert "history" not in binding.call("GetTask", {"id": told(binding)["id"], "historyLength": 0})


@requires("3.2.4", "MUST", "CORE-HIST-002", "a task has no more history than is asked for")
def _(binding):
    task = told(binding)
    for length in (1, 3):
        got = binding.call("GetTask", {"id": task["id"], "historyLength": length})["history"]
        assert got == task["history"][-length:], got


@requires("3.2.4", "SHOULD", "CORE-HIST-003", "an answer has no history where none is asked for")
def _(binding):
    task = task_of(binding, "tck-input-required", "INPUT_REQUIRED")
    answered = send(binding, "tck-complete-task", taskId=task["id"], configuration={"historyLength": 0})
    assert "history" not in answered["task"], answered


@requires("3.2.4", "MAY", "CORE-HIST-004", "a task keeps its messages")
def _(binding):
    assert len(binding.call("GetTask", {"id": told(binding)["id"], "historyLength": 10})["history"]) == 4


@requires("3.2.4", "SHOULD", "CORE-HIST-005", "messages are kept in their order")
def _(binding):
    roles = [one["role"] for one in told(binding)["history"]]
    assert roles == ["ROLE_USER", "ROLE_AGENT", "ROLE_USER", "ROLE_AGENT"], roles


@requires("3.2.4", "SHOULD", "CORE-HIST-006", "messages are kept as they were sent")
def _(binding):
    kept = [one["parts"][0]["text"] for one in told(binding)["history"]]
    assert kept == ["First", "What else?", "Second", "Hello from TCK"], kept


# 3.3: errors and capabilities.


@requires("3.3.2", "MUST", "CORE-ERR-001", "an error says what it is")
def _(binding):
    refusal = refused("TASK_NOT_FOUND", lambda: binding.call("GetTask", {"id": "nobody"}))
    assert "nobody" in refusal.message, refusal


@requires("3.3.2", "MUST", "CORE-ERR-002", "a request is held against what it must be")
def _(binding):
    for wrong in ({}, {"messageId": ""}, {"parts": []}):
        sent = {"message": {**message("tck-invalid"), **wrong}} if wrong else {}
        refused("INVALID_PARAMS", lambda: binding.call("SendMessage", sent))


@requires("3.3.4", "MUST", "CORE-CAP-001", "push notifications are refused where the card offers none")
def _(binding):
    if card()["capabilities"].get("pushNotifications"):
        raise NotAsked
    config = {"taskId": "t", "url": "https://example.com"}
    refused("PUSH_NOTIFICATION_NOT_SUPPORTED", lambda: binding.call("CreateTaskPushNotificationConfig", config))


@requires("3.3.4", "MUST", "CORE-CAP-003", "the extended card is an unsupported operation where the card offers none")
def _(binding):
    assert not card()["capabilities"].get("extendedAgentCard")
    refused("UNSUPPORTED_OPERATION", lambda: binding.call("GetExtendedAgentCard", {}))


# 3.4: contexts and tasks.


@requires("3.4.1", "MUST", "CORE-MULTI-001, CORE-MULTI-001a", "a context that the agent makes is said")
def _(binding):
    contexts = {task_of(binding, "tck-complete-task")["contextId"] for _ in range(2)}
    assert all(contexts) and len(contexts) == 2, contexts
    assert send(binding, "tck-message-response")["message"]["contextId"]


@requires("3.4.1", "MUST", "CORE-MULTI-002, CORE-MULTI-002a", "a context that the client names is kept")
def _(binding):
    context = kit_id("context")
    assert task_of(binding, "tck-complete-task", contextId=context)["contextId"] == context


@requires("3.4.2", "MUST", "CORE-MULTI-003", "each task has an id of its own")
def _(binding):
    ids = [task_of(binding, "tck-complete-task")["id"] for _ in range(3)]
    assert all(ids) and len(set(ids)) == 3, ids


@requires("3.4.2", "MUST", "CORE-MULTI-004", "a message to a task that there is not is refused")
def _(binding):
    refused("TASK_NOT_FOUND", lambda: send(binding, "tck-multi-004", taskId=kit_id("nonexistent")))


@requires("3.4.3", "MUST", "CORE-MULTI-005", "a message to a task is in the context of the task")
def _(binding):
    task = task_of(binding, "tck-input-required", "INPUT_REQUIRED")
    answered = send(binding, "tck-infer", taskId=task["id"])["task"]
    assert answered["contextId"] == task["contextId"] and answered["id"] == task["id"], answered


@requires("3.4.3", "MUST", "CORE-MULTI-006", "a message to a task of another context is refused")
def _(binding):
    for prefix in ("tck-input-required", "tck-complete-task"):
        task = task_of(binding, prefix)
        refused(None, lambda: send(binding, "tck-mismatch", taskId=task["id"], contextId=kit_id("wrong")))


# 3.5: streams.


@requires("3.5.2", "MUST", "STREAM-ORDER-001", "a stream shows things in their order")
def _(binding):
    shown = list(binding.stream("SendStreamingMessage", {"message": message("tck-stream-ordering-001")}))
    ranks = {"SUBMITTED": 0, "WORKING": 1, "COMPLETED": 2}
    states = [ranks[state_shown(event)] for event in shown if state_shown(event)]
    assert states == sorted(states) and states[-1] == 2, states


def new(binding):
    """Another client of the same binding."""
    return type(binding)()


def streams_of_one_task(binding, first_leaves):
    task = task_of(binding, "tck-input-required", "INPUT_REQUIRED")
    streams = [new(binding).stream("SubscribeToTask", {"id": task["id"]}) for _ in range(2)]
    shown = [[next(stream)] for stream in streams]
    if first_leaves:
        streams[0].close()
    readers = [
        threading.Thread(target=lambda index=index: shown[index].extend(streams[index]))
        for index in range(1 if first_leaves else 0, 2)
    ]
    for reader in readers:
        reader.start()
    send(binding, "tck-complete-task", taskId=task["id"])
    for reader in readers:
        reader.join(PATIENCE)
        assert not reader.is_alive(), "a stream did not end"
    return shown


@requires("3.5.2", "MUST", "STREAM-ORDER-002, STREAM-ORDER-003", "every stream of a task shows the same in the same order")
def _(binding):
    first, second = streams_of_one_task(binding, False)
    assert first == second and len(first) >= 2, (first, second)
    assert state_shown(first[-1]) == "COMPLETED"


@requires("3.5.2", "MUST", "STREAM-ORDER-004", "a stream goes on when another is left")
def _(binding):
    _, second = streams_of_one_task(binding, True)
    assert len(second) >= 2 and state_shown(second[-1]) == "COMPLETED", second


# 3.6: versions.


@requires("3.6", "MUST", "VER-CLIENT-002", "the patch of a version does not count")
def _(binding):
    for version in ("1.0", "1.0.1", "1"):
        sent = {"message": message("tck-complete-task")}
        assert binding.call("SendMessage", sent, {"A2A-Version": version})["task"]


@requires("3.6.2", "MUST", "VER-SERVER-001, VER-SERVER-002", "a version that is not spoken is refused")
def _(binding):
    for version in ("99.0", "0.3", "1.7", "x"):
        sent = {"message": message("tck-complete-task")}
        refused("VERSION_NOT_SUPPORTED", lambda: binding.call("SendMessage", sent, {"A2A-Version": version}))


@requires("3.6.2", "MUST", "VER-SERVER-003", "no version is version 0.3")
def _(binding):
    sent = {"message": message("tck-complete-task")}
    refused("VERSION_NOT_SUPPORTED", lambda: binding.call("SendMessage", sent, {"A2A-Version": ""}))
    # Over gRPC the name of the service says the version.
    if binding.name != "GRPC":
        refused("VERSION_NOT_SUPPORTED", lambda: binding.call("SendMessage", sent, {}))


@requires("3.6.1", "MAY", "", "a version may be said by a parameter", AS_JSON)
def _(binding):
    request = binding.request("SendMessage", {"message": message("tck-complete-task")}, {})
    request.url = request.url.copy_add_param("A2A-Version", VERSION)
    response = binding.http.send(request)
    assert binding.result(response, response.json())["task"]


# 4: what is said.


@requires("4.1", "MUST", "DM-TASK-001, DM-TASK-002, DM-MSG-001, DM-MSG-002, DM-PART-001, DM-ART-001, DM-STATUS-001",
          "tasks, messages, parts and artifacts are what the protocol says they are")
def _(binding):
    # Each answer is held against the protocol buffers as it comes: see `check_shape`.
    for prefix in ("tck-dm-test", "tck-artifact-text", "tck-artifact-data", "tck-input-required", "tck-reject-task"):
        task = task_of(binding, prefix)
        assert task["id"] and task["history"][0]["messageId"] == f"{prefix}-fixed", task
    answer = send(binding, "tck-message-response")["message"]
    assert (answer["role"], answer["parts"][0]["text"]) == ("ROLE_AGENT", "Direct message response"), answer


def artifact(binding, prefix):
    task = task_of(binding, prefix, "COMPLETED")
    artifact, = task["artifacts"]
    part, = artifact["parts"]
    assert artifact["artifactId"]
    return part


@requires("4.1.7", "MUST", "DM-ART-001", "an artifact holds a text, a file, an address or data")
def _(binding):
    assert artifact(binding, "tck-artifact-text")["text"] == "Generated text content"
    file = artifact(binding, "tck-artifact-file")
    assert base64.b64decode(file["raw"]) == b"tck", file
    url = artifact(binding, "tck-artifact-file-url")
    assert url["url"] == "https://example.com/output.txt", url
    for part in (file, url):
        assert (part["filename"], part["mediaType"]) == ("output.txt", "text/plain"), part
    assert artifact(binding, "tck-artifact-data")["data"] == {"key": "value", "count": 42}


@requires("4.2.2", "MUST", "", "an artifact may come in chunks, and the last is marked")
def _(binding):
    shown = list(binding.stream("SendStreamingMessage", {"message": message("tck-stream-artifact-chunked")}))
    task = binding.call("GetTask", {"id": shown[0]["task"]["id"]})
    chunks = [part["text"] for part in task["artifacts"][0]["parts"]]
    assert chunks == ["chunk-1 ", "chunk-2"], chunks
    updates = [event["artifactUpdate"] for event in shown if "artifactUpdate" in event]
    if "artifacts" not in shown[0]["task"]:
        assert [one["artifact"]["parts"][0]["text"] for one in updates] == chunks, updates
        assert [one.get("append", False) for one in updates] == [False, True], updates
        assert [one.get("lastChunk", False) for one in updates] == [False, True], updates


def walk(value):
    if isinstance(value, dict):
        yield from value.items()
    for one in value.values() if isinstance(value, dict) else value if isinstance(value, list) else []:
        yield from walk(one)


@requires("5.5", "MUST", "DM-SERIAL-001, DM-SERIAL-002", "fields are in camelCase, and enumerations are their names", AS_JSON)
def _(binding):
    for key, value in walk(told(binding)):
        assert "_" not in key, key
        if key in ("state", "role"):
            assert re.fullmatch(r"(TASK_STATE|ROLE)_[A-Z_]+", value), value


@requires("5.6.1", "MUST", "DM-SERIAL-003", "times are in UTC, and to the millisecond", AS_JSON)
def _(binding):
    times = [value for key, value in walk(told(binding)) if key == "timestamp"]
    for value in times:
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{3})?Z", value), value
    assert times


@requires("5.7", "SHOULD", "DM-SERIAL-004, DM-SERIAL-005", "what is not known is passed over", AS_JSON)
def _(binding):
    sent = {"message": {**message("tck-dm-serial"), "tckUnknownField": "x"}, "tckExtraParam": 42}
    assert binding.call("SendMessage", sent)["task"]


# 7.6.1: permissions.


@requires("7.6.1", "MUST", "AUTH-INTASK-001, AUTH-INTASK-002", "a task that waits for a permission says so and goes on with it")
def _(binding):
    task = task_of(binding, "tck-auth-required", "AUTH_REQUIRED")
    assert state(binding.call("GetTask", {"id": task["id"]})) == "AUTH_REQUIRED"
    assert state(send(binding, "tck-complete-task", taskId=task["id"])["task"]) == "COMPLETED"


# 8: the card.


@requires("8", "MUST", "CARD-DISC-001, CARD-STRUCT-001, CARD-PROTO-001, CARD-PROTO-002, BIND-FIELD-001",
          "the card is where it is looked for, whole, and names every binding", ("card",))
def _(_):
    shown = card()
    check_shape(shown, pb.AgentCard)
    assert shown["skills"] and shown["defaultInputModes"] and shown["defaultOutputModes"]
    for interface in shown["supportedInterfaces"]:
        assert interface["url"] and interface["protocolVersion"] == VERSION, interface
    assert {one["protocolBinding"] for one in shown["supportedInterfaces"]} == set(EVERYWHERE)


@requires("8.6.1", "SHOULD", "CARD-CACHE-001, CARD-CACHE-002, CARD-CACHE-003", "the card may be kept for a time", ("card",))
def _(_):
    where = f"{BASE}/.well-known/agent-card.json"
    answer = httpx.get(where)
    assert re.search(r"max-age=\d+", answer.headers["cache-control"]), answer.headers
    assert re.fullmatch(r"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT", answer.headers["last-modified"]), answer.headers
    assert httpx.get(where, headers={"If-None-Match": answer.headers["etag"]}).status_code == 304


# 9 to 11: the bindings.


@requires("9.1", "MUST", "JSONRPC-FMT-001, JSONRPC-FMT-002", "JSON-RPC is answered in application/json", ("JSONRPC",))
def _(binding):
    response = binding.http.send(binding.request("SendMessage", {"message": message("tck-complete-task")}, None))
    assert response.headers["content-type"].startswith("application/json"), response.headers


@requires("9.1", "MUST", "JSONRPC-SVC-001", "every method is there by its name", ("JSONRPC",))
def _(binding):
    names = list(METHODS) + [
        "GetTaskPushNotificationConfig", "ListTaskPushNotificationConfigs", "DeleteTaskPushNotificationConfig",
    ]
    codes = {}
    for name in [*names, "NoSuchMethod"]:
        body = {"jsonrpc": "2.0", "id": 1, "method": name, "params": {"id": "nobody", "taskId": "nobody"}}
        answer = binding.http.post("/", json=body, headers={"A2A-Version": VERSION}).json()
        codes[name] = answer.get("error", {}).get("code")
    assert [name for name, code in codes.items() if code == -32601] == ["NoSuchMethod"], codes


@requires("9.2, 10.2, 11.2", "MUST", "JSONRPC-SVC-002, HTTP_JSON-SVC-002, GRPC-META-001", "extensions may be named")
def _(binding):
    headers = {"A2A-Version": VERSION, "A2A-Extensions": "https://example.com/ext/v1,https://example.com/ext/v2"}
    assert binding.call("SendMessage", {"message": message("tck-complete-task")}, headers)["task"]


@requires("9.4.2, 11.7", "MUST", "JSONRPC-SSE-001, HTTP_JSON-SSE-001", "streams are server-sent events", AS_JSON)
def _(binding):
    # The type and each event are held against the specification as they come: see `Http.stream`.
    assert list(binding.stream("SendStreamingMessage", {"message": message("tck-stream-001")}))


@requires("9.5, 11.4", "MUST", "JSONRPC-SSE-002, HTTP_JSON-STATUS-001", "content that is no JSON is refused", AS_JSON)
def _(binding):
    request = binding.request("SendMessage", {"message": message("tck-complete-task")}, None)
    request.headers["content-type"] = "text/plain"
    response = binding.http.send(request)
    refused("CONTENT_TYPE_NOT_SUPPORTED", lambda: binding.result(response, response.json()))


@requires("9.5", "MUST", "JSONRPC-ERR-001, JSONRPC-ERR-002, JSONRPC-ERR-003", "errors are those of JSON-RPC", ("JSONRPC",))
def _(binding):
    refusal = refused("TASK_NOT_FOUND", lambda: binding.call("GetTask", {"id": kit_id("nonexistent")}))
    error = refusal.raw.json()["error"]
    assert isinstance(error["data"], list) and refusal.raw.status_code == 200, error
    for body, code in ((b"{", -32700), (b'{"jsonrpc": "2.0", "id": 1}', -32600)):
        headers = {"Content-Type": "application/json", "A2A-Version": VERSION}
        answer = binding.http.post("/", content=body, headers=headers).json()
        assert answer["error"]["code"] == code, answer


@requires("10.1, 10.6, 10.7", "MUST", "GRPC-SVC-001, GRPC-SVC-002, GRPC-ERR-001, GRPC-ERR-002, GRPC-ERR-003",
          "the service is there, streams are streams, and a client may leave one", ("GRPC",))
def _(binding):
    stream = binding.stream("SendStreamingMessage", {"message": message("never-ending")})
    task = next(stream)["task"]
    stream.close()
    # What was under way still comes, and then it ends.
    assert all(state_shown(event) == "WORKING" for event in stream)
    assert state(binding.call("CancelTask", {"id": task["id"]})) == "CANCELED"


@requires("11.1", "SHOULD", "HTTP_JSON-SVC-001", "HTTP+JSON is taken and answered in application/a2a+json", ("HTTP+JSON",))
def _(binding):
    request = binding.request("SendMessage", {"message": message("tck-complete-task")}, None)
    request.headers["content-type"] = "application/a2a+json"
    response = binding.http.send(request)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].split(";")[0] == "application/a2a+json", response.headers


@requires("11.3, 11.5", "MUST", "HTTP_JSON-URL-001, HTTP_JSON-URL-002, HTTP_JSON-QP-001",
          "every operation is at its path, and parameters are in camelCase", ("HTTP+JSON",))
def _(binding):
    # The paths are those of `Rest.request`, which every requirement goes by.
    context = kit_id("context")
    task = task_of(binding, "tck-artifact-text", contextId=context)
    listed = binding.http.get("/tasks", headers={"A2A-Version": VERSION}, params={
        "contextId": context, "status": "TASK_STATE_COMPLETED", "pageSize": 1, "historyLength": 0, "includeArtifacts": "true",
        "statusTimestampAfter": "2020-01-01T00:00:00Z",
    }).json()
    assert [one["id"] for one in listed["tasks"]] == [task["id"]] and "history" not in listed["tasks"][0], listed
    wrong = binding.http.get("/tasks", headers={"A2A-Version": VERSION}, params={"status": "TASK_STATE_RUNNING"})
    assert wrong.status_code == 400, wrong.text


@requires("11.6", "MUST", "HTTP_JSON-ERR-001, HTTP_JSON-ERR-002", "errors are a google.rpc.Status", ("HTTP+JSON",))
def _(binding):
    refusal = refused("TASK_NOT_FOUND", lambda: binding.call("GetTask", {"id": kit_id("nonexistent")}))
    error = refusal.raw.json()["error"]
    assert (error["code"], error["status"]) == (404, "NOT_FOUND"), error


@requires("5.1", "MUST", "BIND-EQUIV-001, BIND-EQUIV-002, BIND-EQUIV-003", "what one binding shows, all show", ("card",))
def _(_):
    bindings = [JsonRpc(), Rest(), Grpc()]
    task = task_of(bindings[0], "tck-artifact-data", "COMPLETED")
    shown = [binding.call("GetTask", {"id": task["id"]}) for binding in bindings]
    assert shown[0] == shown[1] == shown[2], shown


def main() -> None:
    bindings = {"JSONRPC": JsonRpc, "HTTP+JSON": Rest, "GRPC": Grpc, "card": lambda: None}

    def hold(section, level, kit, requirement, name, check) -> str:
        said = {"section": section, "level": level, "requirement": requirement, "kit": kit, "binding": name}
        try:
            check(bindings[name]())
        except NotAsked:
            said["not_asked"] = True
        except Exception:  # noqa: BLE001: whatever it is, the requirement does not hold
            said["why"] = traceback.format_exc(limit=-3)
        return json.dumps(said)

    with ThreadPoolExecutor(8) as pool:
        asked = [
            pool.submit(hold, section, level, kit, requirement, name, check)
            for section, level, kit, requirement, where, check in REQUIREMENTS
            for name in where
        ]
        for one in asked:
            print(one.result(), flush=True)


main()

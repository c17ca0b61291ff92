"""Clients of the grpc transport that are not ours: grpcio, with reflection, health checking and google.rpc details.

There are no stubs: what the server says of itself by reflection is all that is known here. Each scenario is a function; it
prints what the test waits for, waits for lines on standard input where the test must act first, and fails by an assertion.

    grpc_client.py TARGET [--ca FILE] [--cert FILE --key FILE] [--token TOKEN] SCENARIO [ARGUMENT...]
"""

import argparse
import json
import sys
import threading

import grpc
from google.protobuf import json_format, message_factory
from google.protobuf.descriptor_pool import DescriptorPool
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from grpc_status import rpc_status

PATIENCE = 60
JOBS = "tinkerbell.v1.JobService"
NODE = "tinkerbell.v1.NodeService"


class Client:
    def __init__(self, channel):
        self.channel = channel
        self.reflection = ProtoReflectionDescriptorDatabase(channel)
        self.pool = DescriptorPool(self.reflection)
        self.health = health_pb2_grpc.HealthStub(channel)

    def call(self, method, fields=None, *, timeout=PATIENCE, raw=None, metadata=None):
        """A call; for a stream, what iterates over it. `raw` are the bytes of a message, as they are."""
        service, name = method.split("/")
        method = self.pool.FindServiceByName(service).FindMethodByName(name)
        request = message_factory.GetMessageClass(method.input_type)()
        json_format.ParseDict(fields or {}, request)
        answer = message_factory.GetMessageClass(method.output_type)
        kind = self.channel.unary_stream if method.server_streaming else self.channel.unary_unary
        call = kind(
            f"/{service}/{name}",
            request_serializer=lambda request: request.SerializeToString() if raw is None else raw,
            response_deserializer=answer.FromString,
        )
        return call(request, timeout=timeout, metadata=metadata)

    def job(self, name, fields=None, **options):
        return self.call(f"{JOBS}/{name}", fields, **options)

    def node(self, name, fields=None, **options):
        return self.call(f"{NODE}/{name}", fields, **options)

    def submit(self, program, input, **spec):
        spec |= {"program": program, "inputJson": json.dumps(input)}
        return self.job("Submit", {"spec": spec}).job


def details_of(error):
    """The details of a status, by the names of their kinds."""
    details = {}
    for packed in rpc_status.from_call(error).details:
        for kind in (
            error_details_pb2.ErrorInfo,
            error_details_pb2.BadRequest,
            error_details_pb2.RetryInfo,
        ):
            if packed.Is(kind.DESCRIPTOR):
                details[kind.__name__] = kind()
                packed.Unpack(details[kind.__name__])
    return details


def refused(call, code, reason):
    """Makes a call that must fail, and gives the details of its status."""
    try:
        answer = call()
        answer = list(answer) if hasattr(answer, "__iter__") else answer
    except grpc.RpcError as error:
        assert error.code() == code, (error.code(), error.details())
        details = details_of(error)
        info = details["ErrorInfo"]
        assert (info.reason, info.domain) == (reason, "tinkerbell"), info
        trailers = dict(error.trailing_metadata())
        assert trailers["tinkerbell-reason"] == reason, trailers
        details["text"] = error.details()
        return details
    raise AssertionError(f"not refused: {answer}")


def say(line):
    print(line, flush=True)


def hear(line):
    heard = sys.stdin.readline().strip()
    assert heard == line, heard


SPEAKS = {
    "steps": [
        {"id": "hello", "run": {"shell": "echo out; echo err >&2"}},
        {"id": "say", "say": "half way", "needs": ["hello"]},
        {
            "id": "gift",
            "needs": ["say"],
            "artifact": {"name": "a.txt", "media_type": "text/plain", "chunk_bytes": 50_000, "text": "x" * 200_000},
        },
        {"id": "may", "needs": ["gift"], "ask": {"prompt": "go on?", "approval": True}},
    ],
}


def jobs(client):
    """Everything that can be done with jobs, once."""
    services = set(client.reflection.get_services())
    assert {JOBS, NODE, "grpc.health.v1.Health"} <= services, services
    for name in ("", JOBS, NODE):
        answer = client.health.Check(health_pb2.HealthCheckRequest(service=name))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING, answer
    try:
        client.health.Check(health_pb2.HealthCheckRequest(service="other"))
        raise AssertionError("an unknown service has no health")
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.NOT_FOUND, error

    spec = {
        "program": "plan",
        "inputJson": json.dumps(SPEAKS),
        "name": "speaks",
        "key": "once",
        "labels": {"team": "red"},
        "priority": "JOB_PRIORITY_HIGH",
    }
    first = client.job("Submit", {"spec": spec})
    again = client.job("Submit", {"spec": spec})
    assert first.is_new and not again.is_new and first.job == again.job
    other = spec | {"priority": "JOB_PRIORITY_LOW"}
    submit = lambda: client.job("Submit", {"spec": other})
    refused(submit, grpc.StatusCode.ALREADY_EXISTS, "conflict")

    # Watching: up to the question, which is answered; then to the end.
    kinds, lsns = [], []
    for message in client.job("Watch", {"job": "speaks"}):
        kind = message.WhichOneof("item")
        if kind == "event":
            event = message.event
            kinds.append(event.WhichOneof("kind"))
            assert event.job == first.job and event.at_ms > 0, event
            if event.HasField("lsn"):
                lsns.append(event.lsn)
            if kinds[-1] == "question":
                question = event.question.name
                details = client.job("Get", {"job": first.job[:13]}).details
                assert details.job.state == 3, details.job
                assert details.questions[0].prompt == "go on?", details
                assert json.loads(details.input_json) == SPEAKS
                result = lambda: client.job("Result", {"job": first.job})
                refused(result, grpc.StatusCode.FAILED_PRECONDITION, "failed_precondition")
                payload = {"job": "speaks", "name": question, "payloadJson": "true"}
                assert client.job("Signal", payload).job == first.job
    end = message.end
    assert (end.reason, end.state) == (1, 5), end
    for kind in ("job_submitted", "step_started", "message", "artifact", "answered"):
        assert kind in kinds, (kind, kinds)
    assert kinds[-1] == "job_finished", kinds
    assert lsns == sorted(lsns), lsns
    signal = lambda: client.job("Signal", payload)
    refused(signal, grpc.StatusCode.FAILED_PRECONDITION, "failed_precondition")

    # Output: from the journal, and followed to the end.
    for follow in (False, True):
        pieces, end = {"1": "", "2": ""}, None
        for message in client.job("Logs", {"job": "speaks", "follow": follow}):
            if message.WhichOneof("item") == "piece":
                pieces[str(message.piece.stream)] += message.piece.data
            else:
                end = message.end
        assert pieces == {"1": "out\n", "2": "err\n"}, pieces
        assert (end is not None) == follow and (not follow or end.exit_code == 0), end
    only = list(client.job("Logs", {"job": "speaks", "stream": "OUTPUT_STREAM_STDERR"}))
    assert [message.piece.data for message in only] == ["err\n"], only

    result = client.job("Result", {"job": "speaks"}).result
    assert result.WhichOneof("state") == "completed" and json.loads(result.completed.output_json)
    artifacts = client.job("ListArtifacts", {"job": "speaks"}).artifacts
    assert [(a.name, a.size_bytes, a.complete) for a in artifacts] == [("a.txt", 200_000, True)]
    messages = list(client.job("GetArtifact", {"job": "speaks", "name": "a.txt"}))
    assert messages[0].artifact.media_type == "text/plain" and len(messages) > 2
    assert b"".join(message.chunk for message in messages[1:]) == b"x" * 200_000

    # History, page by page, is what the stream told, without what was printed.
    after, told = None, []
    while True:
        page = client.job("History", {"job": "speaks", "limit": 2} | ({"after": after} if after else {}))
        told += [event.lsn for event in page.events]
        if not page.HasField("next"):
            break
        after = page.next
    assert told == lsns, (told, lsns)

    # Lists, pages, and the end of many.
    red = [client.submit("plan", {"steps": [{"id": "s", "sleep": "1h"}]}, labels={"n": "1"}) for _ in range(3)]
    page = client.job("List", {"labels": {"n": "1"}, "limit": 2})
    assert [job.id for job in page.jobs] == red[:0:-1], page
    rest = client.job("List", {"labels": {"n": "1"}, "before": page.next})
    assert [job.id for job in rest.jobs] == red[:1] and not rest.HasField("next"), rest
    many = lambda: client.job("CancelMany", {})
    bad = refused(many, grpc.StatusCode.INVALID_ARGUMENT, "invalid")["BadRequest"]
    assert bad.field_violations[0].field == "all", bad
    would = client.job("CancelMany", {"labels": {"n": "1"}, "dryRun": True})
    assert would.dry_run and sorted(would.jobs) == sorted(red), would
    assert client.job("Cancel", {"job": red[0], "reason": "no more"}).job == red[0]
    end = list(client.job("Watch", {"job": red[0]}))[-1].end
    assert (end.reason, end.state) == (1, 7), end
    cancelled = client.job("Result", {"job": red[0]}).result
    assert cancelled.cancelled.reason == "no more", cancelled
    done = client.job("CancelMany", {"labels": {"n": "1"}})
    assert sorted(done.jobs) == sorted(red[1:]) and not done.failed, done

    node = client.node("Get").node
    assert node.state == 1 and node.requests >= 1 and "grpc" in node.features, node
    parts = [part.WhichOneof("part") for part in client.node("Dump")]
    assert parts[0] == "engine" and "text" in parts, parts
    assert client.node("Reload").accepted


def refusals(client):
    """What is refused, and how it is said."""
    code = grpc.StatusCode
    get = lambda: client.job("Get", {"job": "nobody"})
    assert "nobody" in refused(get, code.NOT_FOUND, "not_found")["text"]

    def submit(spec):
        return lambda: client.job("Submit", {"spec": spec})

    bad = refused(submit({"program": "none", "inputJson": "{}"}), code.INVALID_ARGUMENT, "invalid")
    assert bad["BadRequest"].field_violations[0].field == "spec.program", bad
    steps = json.dumps({"steps": [{"id": "a", "sleep": 7}]})
    bad = refused(submit({"program": "plan", "inputJson": steps}), code.INVALID_ARGUMENT, "invalid")
    violation = bad["BadRequest"].field_violations[0]
    assert violation.field == "spec.input_json" and violation.description.startswith("/steps"), bad
    bad = refused(submit({"program": "plan", "inputJson": "{"}), code.INVALID_ARGUMENT, "invalid")
    assert bad["BadRequest"].field_violations[0].field == "spec.input_json", bad
    missing = lambda: client.job("Submit")
    refused(missing, code.INVALID_ARGUMENT, "invalid")
    state = lambda: client.job("List", {"states": [99]})
    refused(state, code.INVALID_ARGUMENT, "invalid")
    before = lambda: client.job("List", {"before": "x"})
    refused(before, code.INVALID_ARGUMENT, "invalid")

    # Bytes that are no message: a text that is not UTF-8, and one that ends too early.
    for raw in (b"\x0a\x02\xff\xfe", b"\x0a\x7fshort"):
        broken = lambda: client.job("Get", raw=raw)
        refused(broken, code.INVALID_ARGUMENT, "invalid")
    # Beyond `api.message_size`, by far and by one byte (the test sets 4 KiB). The name is quoted in no header.
    for size in (1 << 20, 4097 - 3):
        large = lambda: client.job("Get", {"job": "x" * size})
        refused(large, code.RESOURCE_EXHAUSTED, "too_large")
    nobody = lambda: client.job("Get", {"job": "x" * 4000})
    refused(nobody, code.NOT_FOUND, "not_found")

    for path in (f"/{JOBS}/Explode", "/tinkerbell.v2.JobService/Get", "/../../etc/passwd"):
        nothing = lambda: client.channel.unary_unary(path)(b"", timeout=PATIENCE)
        refused(nothing, code.UNIMPLEMENTED, "unsupported")
    packed = lambda: client.channel.unary_unary(f"/{JOBS}/Get")(
        b"", timeout=PATIENCE, compression=grpc.Compression.Gzip
    )
    try:
        packed()
        raise AssertionError("an empty word is no job")
    except grpc.RpcError as error:
        assert error.code() in (code.UNIMPLEMENTED, code.NOT_FOUND), error

    # A deadline ends a stream, also where the client does not count it itself.
    late = lambda: client.job("Watch", timeout=0.2)
    try:
        list(late())
        raise AssertionError("nothing ends this stream but its deadline")
    except grpc.RpcError as error:
        assert error.code() == code.DEADLINE_EXCEEDED, error

    # Streams that their client cancels give their places back; beyond the limit there are none (the test sets 4).
    streams = [client.job("Watch", timeout=None) for _ in range(4)]
    for stream in streams:
        stream.initial_metadata()
    fifth = lambda: client.job("Watch")
    details = refused(fifth, code.RESOURCE_EXHAUSTED, "exhausted")
    assert details["RetryInfo"].retry_delay.seconds >= 1, details
    assert client.node("Get").node.streams == 4
    for stream in streams:
        stream.cancel()
    while client.node("Get").node.streams > 0:
        pass
    list(client.job("Watch", {"job": client.submit("command", {"argv": ["true"]})}))


def watch(client, job, after):
    """Tells the number of every event in the log after one, as it comes."""
    fields = {"job": job, "output": False} | ({"after": int(after)} if int(after) else {})
    try:
        for message in client.job("Watch", fields):
            if message.WhichOneof("item") == "event" and message.event.HasField("lsn"):
                say(f"{message.event.lsn} {message.event.WhichOneof('kind')}")
            elif message.WhichOneof("item") == "end":
                say(f"end {message.end.reason}")
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.UNAVAILABLE, error
        say("lost")


def submit(client, text):
    say(client.submit("plan", json.loads(text)))


def signal(client, job, name):
    client.job("Signal", {"job": job, "name": name, "payloadJson": "true"})


def shutdown(client):
    """Streams stay open while the daemon stops, and end with a message that says so."""
    job = client.submit("command", {"shell": "read _ < $TINKERBELL_START_DIR/go"})
    everything = client.job("Watch", timeout=None)
    of_job = client.job("Watch", {"job": job}, timeout=None)
    logs = client.job("Logs", {"job": job, "follow": True}, timeout=None)
    health = client.health.Watch(health_pb2.HealthCheckRequest(), timeout=None)
    serving = health_pb2.HealthCheckResponse
    assert next(health).status == serving.SERVING
    for stream in (everything, logs):
        stream.initial_metadata()
    for message in of_job:
        if message.event.WhichOneof("kind") == "step_started":
            break
    say("open")
    assert next(health).status == serving.NOT_SERVING
    node = lambda: client.node("Get")
    while True:
        # Health is told when draining begins; calls are refused when stopping does, a moment later.
        try:
            node()
        except grpc.RpcError:
            break
    details = refused(node, grpc.StatusCode.UNAVAILABLE, "unavailable")
    assert "RetryInfo" in details, details
    now = client.health.Check(health_pb2.HealthCheckRequest())
    assert now.status == serving.NOT_SERVING
    say("refused")
    last = list(everything)[-1]
    assert last.end.reason == 2, last
    for stream in (of_job, logs):
        last = list(stream)[-1]
        assert last.WhichOneof("item") == "end", last
    say("ended")


def node_shutdown(client):
    client.node("Drain", {"stop": False})
    assert client.node("Get").node.state == 2
    health = client.health.Check(health_pb2.HealthCheckRequest())
    assert health.status == health_pb2.HealthCheckResponse.NOT_SERVING
    submit = lambda: client.submit("command", {"argv": ["true"]})
    refused(submit, grpc.StatusCode.UNAVAILABLE, "unavailable")
    client.node("Shutdown")


def here(client):
    assert client.node("Get").node.state == 1


def no_token(client):
    """Health is told to everybody, and nothing else."""
    health = client.health.Check(health_pb2.HealthCheckRequest())
    assert health.status == health_pb2.HealthCheckResponse.SERVING
    for path in (f"/{NODE}/Get", f"/{JOBS}/List", "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"):
        for metadata in ((), (("authorization", "Bearer wrong"),), (("authorization", "Basic eDp5"),)):
            ask = lambda: client.channel.unary_unary(path)(b"", timeout=PATIENCE, metadata=metadata)
            refused(ask, grpc.StatusCode.UNAUTHENTICATED, "unauthenticated")


def turned_away(client):
    try:
        client.health.Check(health_pb2.HealthCheckRequest(), timeout=PATIENCE)
        raise AssertionError("the handshake does not succeed")
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.UNAVAILABLE, error


def full(client):
    """One connection is all there may be; a second one is told so."""
    here(client)
    other = connect(ARGUMENTS, (("grpc.use_local_subchannel_pool", 1),))
    ask = lambda: other.channel.unary_unary(f"/{NODE}/Get")(b"", timeout=PATIENCE)
    details = refused(ask, grpc.StatusCode.RESOURCE_EXHAUSTED, "exhausted")
    assert "api.connections" in details["text"] and "RetryInfo" in details
    here(client)


def plain(message):
    """A message as plain JSON: enumerations as words, JSON texts as what they hold, of a choice the name as `type`."""
    fields = {}
    for field, value in message.ListFields():
        name = field.name
        if field.message_type and field.message_type.GetOptions().map_entry:
            value = dict(value)
        elif field.is_repeated:
            value = [plain_value(field, one) for one in value]
        else:
            value = plain_value(field, value)
        # What is chosen stands beside the word for it. An event's kind and a part's type are `type`, a result's state its state.
        choice = field.containing_oneof and field.containing_oneof.name
        word = {"kind": "type", "type": "type", "state": "state"}.get(choice)
        if name.endswith("_json"):
            name, value = name.removesuffix("_json"), json.loads(value)
        if word:
            fields[word] = name
        fields |= value if word and isinstance(value, dict) and field.message_type else {name: value}
    return fields


def plain_value(field, value):
    if field.message_type:
        return plain(value)
    if field.enum_type:
        # JOB_STATE_WAITING of JobState is `waiting`.
        kind = "".join("_" + c if c.isupper() else c for c in field.enum_type.name).lstrip("_").upper()
        return field.enum_type.values_by_number[value].name.removeprefix(f"{kind}_").lower()
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def door(client):
    """Makes the calls that standard input asks for, a line of JSON each, and says what comes back, each line with its call's
    number."""
    said = threading.Lock()

    def answer(number, told):
        with said:
            say(f"{number} {json.dumps(told)}")

    def run(number, method, fields):
        call = lambda: client.call(method, fields, timeout=None)
        try:
            messages = call()
            for message in messages if hasattr(messages, "__next__") else [messages]:
                answer(number, {"message": plain(message)})
            answer(number, {})
        except grpc.RpcError as error:
            details = details_of(error)
            places = details["BadRequest"].field_violations if "BadRequest" in details else ()
            places = [{"field": place.field, "description": place.description} for place in places]
            reason, later = details["ErrorInfo"].reason, "RetryInfo" in details
            told = {"reason": reason, "places": places, "later": later, "text": error.details()}
            answer(number, {"refused": told})

    for line in sys.stdin:
        asked = json.loads(line)
        arguments = (asked["call"], asked["method"], asked["fields"])
        threading.Thread(target=run, args=arguments, daemon=True).start()


class Bearer(grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor, grpc.StreamStreamClientInterceptor):
    def __init__(self, token):
        self.token = token

    def _with_token(self, proceed, details, request):
        metadata = list(details.metadata or ()) + [("authorization", f"Bearer {self.token}")]
        return proceed(details._replace(metadata=metadata), request)

    intercept_unary_unary = _with_token
    intercept_unary_stream = _with_token
    intercept_stream_stream = _with_token


def read(path):
    with open(path, "rb") as file:
        return file.read()


def connect(arguments, options=()):
    if arguments.target.startswith("unix:"):
        # grpcio sends the socket's escaped path as the authority, which is none: h2 and hyper refuse it (RFC 3986).
        options += (("grpc.default_authority", "localhost"),)
    if arguments.ca:
        credentials = grpc.ssl_channel_credentials(
            read(arguments.ca),
            arguments.key and read(arguments.key),
            arguments.cert and read(arguments.cert),
        )
        channel = grpc.secure_channel(arguments.target, credentials, options)
    else:
        channel = grpc.insecure_channel(arguments.target, options)
    if arguments.token:
        channel = grpc.intercept_channel(channel, Bearer(arguments.token))
    return Client(channel)


SCENARIOS = (jobs, refusals, watch, submit, signal, shutdown, node_shutdown, here, no_token, turned_away, full, door)

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("target")
    for name in ("--ca", "--cert", "--key", "--token"):
        parser.add_argument(name)
    parser.add_argument("scenario")
    parser.add_argument("arguments", nargs="*")
    ARGUMENTS = parser.parse_args()
    scenario = {scenario.__name__: scenario for scenario in SCENARIOS}[ARGUMENTS.scenario]
    scenario(connect(ARGUMENTS), *ARGUMENTS.arguments)

// Drives the protocol's official JavaScript client, as client.py does the one for Python: one JSON request a line on standard
// input, one JSON answer a line.
//
// Arguments: the agent's address, the binding. The packages are where the environment variable A2A_SDK says.
// Requests: {"op": NAME, "request": MESSAGE AS PROTOJSON, "stream": WHICH}. Answers: {"ok": ...} or {"error": {"type", "message"}}.

import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const require = createRequire(`${process.env.A2A_SDK}/`);
const sdk = require("@a2a-js/sdk");
const { ClientFactory, JsonRpcTransportFactory, RestTransportFactory } = require("@a2a-js/sdk/client");
const { GrpcTransportFactory } = require("@a2a-js/sdk/client/grpc");

const [url, binding] = process.argv.slice(2);
const transports = {
  JSONRPC: () => new JsonRpcTransportFactory(),
  "HTTP+JSON": () => new RestTransportFactory(),
  GRPC: () => new GrpcTransportFactory(),
};
const factory = new ClientFactory({ transports: [transports[binding]()], preferredTransports: [binding] });
const client = await factory.createFromUrl(url);
const streams = new Map();

const UNARY = {
  get_task: [sdk.GetTaskRequest, "getTask", sdk.Task],
  list_tasks: [sdk.ListTasksRequest, "listTasks", sdk.ListTasksResponse],
  cancel_task: [sdk.CancelTaskRequest, "cancelTask", sdk.Task],
  create_task_push_notification_config: [
    sdk.TaskPushNotificationConfig,
    "createTaskPushNotificationConfig",
    sdk.TaskPushNotificationConfig,
  ],
  get_task_push_notification_config: [
    sdk.GetTaskPushNotificationConfigRequest,
    "getTaskPushNotificationConfig",
    sdk.TaskPushNotificationConfig,
  ],
  list_task_push_notification_configs: [
    sdk.ListTaskPushNotificationConfigsRequest,
    "listTaskPushNotificationConfig",
    sdk.ListTaskPushNotificationConfigsResponse,
  ],
  delete_task_push_notification_config: [
    sdk.DeleteTaskPushNotificationConfigRequest,
    "deleteTaskPushNotificationConfig",
    null,
  ],
};

async function rest(stream) {
  const all = [];
  for await (const shown of stream) all.push(sdk.StreamResponse.toJSON(shown));
  return all;
}

async function answer({ op, request = {}, stream }) {
  switch (op) {
    case "send": {
      // Of the two that it may be only a message has a role.
      const said = await client.sendMessage(sdk.SendMessageRequest.fromJSON(request));
      return "role" in said ? { message: sdk.Message.toJSON(said) } : { task: sdk.Task.toJSON(said) };
    }
    case "stream":
      streams.set(stream, client.sendMessageStream(sdk.SendMessageRequest.fromJSON(request)));
      return null;
    case "subscribe":
      streams.set(stream, client.resubscribeTask(sdk.SubscribeToTaskRequest.fromJSON(request)));
      return null;
    case "subscribe_all":
      return rest(client.resubscribeTask(sdk.SubscribeToTaskRequest.fromJSON(request)));
    case "next": {
      const { value } = await streams.get(stream).next();
      return value ? sdk.StreamResponse.toJSON(value) : null;
    }
    case "rest":
      return rest(streams.get(stream));
    default: {
      const [asked, method, given] = UNARY[op];
      const said = await client[method](asked.fromJSON(request));
      return given && given.toJSON(said);
    }
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  let said;
  try {
    said = { ok: await answer(JSON.parse(line)) };
  } catch (error) {
    said = { error: { type: error.name, code: error.code ?? error.envelope?.error?.code, message: error.message } };
  }
  console.log(JSON.stringify(said));
}

"""Validates answers against an OpenAPI 3.1 document.

Reads lines of JSON from standard input: `[operationId, status, media type, body]` for an answer, `[schema, value]` for a
message of a stream. Prints what it has seen, and fails with what is wrong. An object may have no field that its schema
does not name: a description that leaves something out is wrong too.
"""

import json
import sys

from jsonschema import Draft202012Validator, FormatChecker

with open(sys.argv[1], encoding="utf-8") as file:
    description = json.load(file)


def close(schema):
    """Closes every object whose fields are named."""
    if isinstance(schema, dict):
        if "properties" in schema and "type" in schema:
            schema.setdefault("additionalProperties", False)
        for part in schema.values():
            close(part)
    elif isinstance(schema, list):
        for part in schema:
            close(part)


for schema in description["components"]["schemas"].values():
    Draft202012Validator.check_schema(schema)
    close(schema)

operations = {
    operation["operationId"]: operation
    for path in description["paths"].values()
    for method, operation in path.items()
    if method != "parameters"
}
wrong = []


def validate(what, schema, value):
    # References lead into the document, so the schema stands in it.
    whole = {"components": description["components"], **schema}
    validator = Draft202012Validator(whole, format_checker=FormatChecker())
    for error in validator.iter_errors(value):
        wrong.append(f"{what}: {error.message} at {error.json_path} in {value}")


def resolved(part):
    if "$ref" in part:
        return description["components"]["responses"][part["$ref"].rsplit("/", 1)[1]]
    return part


seen = set()
for line in sys.stdin:
    line = json.loads(line)
    if len(line) == 2:
        name, value = line
        seen.add(f"{name} {value.get('type', '')}")
        if name == "Event":
            # By its type, so that what is wrong is named, and not only that none of them fits.
            known = description["components"]["schemas"]["Event"]["discriminator"]["mapping"]
            reference = known.get(value["type"])
            if reference is None:
                wrong.append(f"event of unknown type: {value}")
                continue
            validate(value["type"], {"$ref": reference}, value)
        else:
            validate(name, {"$ref": f"#/components/schemas/{name}"}, value)
        continue
    operation, status, media_type, body = line
    what = f"{operation} {status}"
    seen.add(what)
    response = operations[operation]["responses"].get(str(status))
    if response is None:
        wrong.append(f"{what} is not described: {body}")
        continue
    content = resolved(response)["content"]
    media_type = media_type.split(";")[0]
    described = content.get(media_type) or content.get("*/*")
    if described is None:
        wrong.append(f"{what} is `{media_type}`, described are {list(content)}")
    elif media_type.endswith("json"):
        validate(what, described["schema"], json.loads(body))

for what in sorted(seen):
    print(what)
if wrong:
    sys.exit("\n".join(wrong))

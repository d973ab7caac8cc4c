import json, sys

for line in sys.stdin:
    message = json.loads(line)
    order = json.loads(message["value"])
    if order["cents"] > 0:
        answer = {"outputs": [{"key": str(order["id"]), "value": json.dumps(order)}]}
    else:
        answer = {"error": {"kind": "permanent", "message": "there is nothing to pay"}}
    print(json.dumps({"id": message["id"], **answer}), flush=True)

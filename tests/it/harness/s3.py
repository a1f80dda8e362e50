"""An S3 server on loopback that checks signatures: moto's, with one user who may do everything, a role for whoever has the
token, and a bucket `photos`.

Prints one line of JSON: where it is, and the key. Then it is another client of the bucket: each line of its standard input is an
operation of boto3 and its arguments, and is answered by one line. Ends with its standard input. With `client`, a server as such
a line and a file of authorities it is only that client, of somebody else's server, in which it makes the bucket.
"""

import concurrent.futures
import json
import logging
import os
import sys
import threading

# Five, to make the user and the role, before the server asks who is there.
os.environ["INITIAL_NO_AUTH_ACTION_COUNT"] = "5"
logging.getLogger("werkzeug").setLevel(logging.ERROR)

import boto3  # noqa: E402
from botocore.config import Config  # noqa: E402
from botocore.exceptions import ClientError  # noqa: E402
import flask  # noqa: E402
from moto.core.authorization import ActionAuthenticatorMixin  # noqa: E402
from moto.iam import access_control  # noqa: E402
from moto.server import ThreadedMotoServer  # noqa: E402

TOKEN = "who-i-am"
EVERYTHING = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}


def check_signatures_of_what_was_sent():
    """moto compares with the address unescaped, which is another one as soon as a key has a character to escape."""
    take = access_control.IAMRequestBase.__init__

    def init(self, *, path, **rest):
        take(self, path=flask.request.environ.get("RAW_URI", path), **rest)

    access_control.IAMRequestBase.__init__ = init


def check_tokens():
    """moto wants a signature for the one action that has none, and believes every token."""
    check = ActionAuthenticatorMixin._authenticate_and_authorize_normal_action

    def checked(self, *arguments):
        if self._get_action() != "AssumeRoleWithWebIdentity":
            check(self, *arguments)
        elif self._get_param("WebIdentityToken") != TOKEN:
            raise access_control.InvalidClientTokenIdError()

    ActionAuthenticatorMixin._authenticate_and_authorize_normal_action = checked


def client(service, endpoint, key_id, secret, verify=None):
    return boto3.client(
        service,
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id=key_id,
        aws_secret_access_key=secret,
        verify=verify,
        # What servers understand that are older than trailing checksums.
        config=Config(request_checksum_calculation="when_required", response_checksum_validation="when_required"),
    )


def serve():
    check_signatures_of_what_was_sent()
    check_tokens()
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    endpoint = f"http://127.0.0.1:{server.get_host_and_port()[1]}"
    iam = client("iam", endpoint, "x", "x")
    iam.create_user(UserName="test")
    iam.put_user_policy(UserName="test", PolicyName="all", PolicyDocument=json.dumps(EVERYTHING))
    key = iam.create_access_key(UserName="test")["AccessKey"]
    role = iam.create_role(RoleName="reader", AssumeRolePolicyDocument="{}")["Role"]
    iam.put_role_policy(RoleName="reader", PolicyName="all", PolicyDocument=json.dumps(EVERYTHING))
    made = {
        "endpoint": endpoint,
        "access_key_id": key["AccessKeyId"],
        "secret_access_key": key["SecretAccessKey"],
        "role_arn": role["Arn"],
        "token": TOKEN,
    }
    client("s3", endpoint, key["AccessKeyId"], key["SecretAccessKey"]).create_bucket(Bucket="photos")
    print(json.dumps(made), flush=True)
    threading.Event().wait()


def put_all(s3, keys, body):
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        return len(list(pool.map(lambda key: s3.put_object(Bucket="photos", Key=key, Body=body), keys)))


def operate(s3, made):
    print(json.dumps(made), flush=True)
    for line in sys.stdin:
        operation, arguments = json.loads(line)
        try:
            if operation == "put_all":
                print(json.dumps({"ok": put_all(s3, **arguments)}), flush=True)
                continue
            answer = getattr(s3, operation)(**arguments)
            body = answer.pop("Body").read().decode() if "Body" in answer else None
            print(json.dumps({"ok": answer, "body": body}, default=str), flush=True)
        except ClientError as error:
            print(json.dumps({"error": str(error)}), flush=True)


def beside():
    """Another process, which goes on while the server is stopped."""
    import subprocess

    server = subprocess.Popen([sys.executable, __file__, "serve"], stdout=subprocess.PIPE, text=True)
    made = json.loads(server.stdout.readline())
    operate(client("s3", made["endpoint"], made["access_key_id"], made["secret_access_key"]), {**made, "pid": server.pid})
    server.kill()
    server.wait()


if sys.argv[1:] == ["serve"]:
    serve()
elif sys.argv[1:2] == ["client"]:
    made = json.loads(sys.argv[2])
    s3 = client("s3", made["endpoint"], made["access_key_id"], made["secret_access_key"], sys.argv[3])
    s3.create_bucket(Bucket="photos")
    operate(s3, made)
else:
    beside()

"""A provider of OpenID Connect: Canaille, with its accounts in memory and its pages where a browser finds them."""

from __future__ import annotations

import os
import threading
import uuid
import wsgiref.simple_server
from datetime import UTC, datetime
from typing import Any, Final, Self
from urllib.parse import parse_qs, urlsplit

import requests
from peers.ports import free_port

CLIENT: Final = "handoff"
SECRET: Final = "the-provider-knows-it"
REDIRECT: Final = "https://handoff.example.org/login/return"


class _Quiet(wsgiref.simple_server.WSGIRequestHandler):
    def log_message(self, *_: Any) -> None:
        """Nobody reads it."""


class OpenIdProvider:
    """Knows one site, `CLIENT`. `browse` does what a browser does in which somebody is logged in there."""

    def __init__(self) -> None:
        os.environ["AUTHLIB_INSECURE_TRANSPORT"] = "1"  # it listens on loopback
        from canaille import create_app
        from canaille.backends import Backend
        from joserfc.jwk import RSAKey

        key = RSAKey.generate_key(2048)
        key.ensure_kid()
        self.port = free_port()
        self.issuer = f"http://localhost:{self.port}"
        self._user: Any = None
        self._factors: list[str] = []
        self.app = create_app(
            config={
                "TESTING": True,
                "SECRET_KEY": uuid.uuid4().hex,
                "WTF_CSRF_ENABLED": False,
                "PREFERRED_URL_SCHEME": "http",
                "SERVER_NAME": f"localhost:{self.port}",
                "CANAILLE": {
                    "DATABASE": "memory",
                    "ACL": {"DEFAULT": {"PERMISSIONS": ["use_oidc"]}},
                    "LOGGING": {"version": 1, "disable_existing_loggers": False},
                },
                "CANAILLE_OIDC": {
                    "ACTIVE_JWKS": [key.as_dict(private=True)],
                    "TRUSTED_DOMAINS": ["handoff.example.org"],
                },
            }
        )
        self._backend = Backend.instance
        self.app.before_request(self._log_in)
        self._server = wsgiref.simple_server.make_server("localhost", self.port, self.app, handler_class=_Quiet)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()
        self._know()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _know(self) -> None:
        """The site, and that everybody has agreed that it may know who they are."""
        from canaille.app import models

        with self.app.app_context():
            client = models.Client(
                client_id=CLIENT,
                client_secret=SECRET,
                client_name="Handoff",
                client_uri="https://handoff.example.org",
                redirect_uris=[REDIRECT],
                grant_types=["authorization_code"],
                response_types=["code"],
                scope=["openid", "profile"],
                token_endpoint_auth_method="client_secret_basic",
            )
            self._backend.save(client)
            self._backend.update(client, audience=[client])
            self._backend.save(client)

    def seat(self, name: str, *factors: str) -> None:
        """Somebody is logged in in the browser, by these factors (`password`, `otp`)."""
        from canaille.app import models

        with self.app.app_context():
            user = models.User(user_name=name, family_name="Lee", formatted_name="Dana Lee", emails=[f"{name}@x.org"])
            self._backend.save(user)
            self._user, self._factors = user, list(factors)

    def _log_in(self) -> None:
        from canaille.app.session import UserSession
        from flask import g

        if self._user is not None:
            g.session = UserSession(self._user, datetime.now(UTC), self._factors)

    def browse(self, url: str) -> dict[str, str]:
        """Follow an address to where the provider sends the browser back, and give the query it comes back with."""
        answer = requests.get(url, allow_redirects=False, timeout=10)
        location = answer.headers.get("Location", "")
        assert location.startswith(REDIRECT), (answer.status_code, location, answer.text[:500])
        return {key: values[0] for key, values in parse_qs(urlsplit(location).query).items()}

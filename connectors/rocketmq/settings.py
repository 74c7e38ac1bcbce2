"""``spec.rocketmq`` of a cluster. Secrets are references, read where a connection is made, never values."""

from __future__ import annotations

import os
import ssl
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

from connectors.rocketmq.client.client import ClusterAddress
from connectors.rocketmq.client.credentials import Credentials, Security
from connectors.rocketmq.client.errors import UnusableFile

SECRET_BYTES_MAX = 64 * 1024


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SecretReference(_Model):
    """Exactly one of ``env`` and ``file``."""

    env: str | None = None
    file: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _no_plain_value(cls, value: object) -> object:
        if isinstance(value, str):
            raise ValueError("a secret must not stand in the file: write {env: NAME} or {file: /path}")
        return value

    @model_validator(mode="after")
    def _exactly_one(self) -> SecretReference:
        if (self.env is None) == (self.file is None):
            raise ValueError("give either env or file")
        return self

    def read(self) -> str:
        """Raises ``UnusableFile`` naming the reference, never the value."""
        if self.env is not None:
            value = os.environ.get(self.env)
            if value is None:
                raise UnusableFile(f"secret: environment variable {self.env} is not set", hint=f"set {self.env}")
            return value
        assert self.file is not None
        try:
            with Path(self.file).open("rb") as stream:
                return stream.read(SECRET_BYTES_MAX).decode().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise UnusableFile(f"secret: cannot read {self.file}: {error}", hint="check that the file exists and is readable") from error


class TlsSettings(_Model):
    enabled: bool = False
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    verify_hostname: bool = True
    server_name: str = ""

    @model_validator(mode="after")
    def _key_has_certificate(self) -> TlsSettings:
        if self.key_file is not None and self.cert_file is None:
            raise ValueError("key_file needs cert_file")
        return self

    def context(self) -> ssl.SSLContext | None:
        """From the files as they are now. Raises ``UnusableFile`` naming the file that cannot be used."""
        if not self.enabled:
            return None
        files = f"ca_file {self.ca_file}"
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
            context.check_hostname = self.verify_hostname
            if self.cert_file is not None:
                files = f"cert_file {self.cert_file}" + (f" with key_file {self.key_file}" if self.key_file else "")
                # Without a password given here, a key that has one would be asked for on the terminal.
                context.load_cert_chain(self.cert_file, self.key_file, password="")
        except (OSError, ValueError) as error:
            hint = "check that they are PEM files, belong together and are readable"
            raise UnusableFile(f"tls: cannot use {files}: {error}", hint=hint) from error
        return context


Address = Annotated[str, Field(pattern=r"^\S+:\d{1,5}$")]


class RocketMQSettings(_Model):
    name_servers: tuple[Address, ...] = ()
    name_server_url: str = ""
    cluster_name: str = ""
    namespace: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{0,100}$")] = ""
    """Of RocketMQ 4.x: what clients write before the names of topics and groups."""
    access_key: SecretReference | None = None
    secret_key: SecretReference | None = None
    security_token: SecretReference | None = None
    tls: TlsSettings = TlsSettings()
    address_map: dict[str, Address] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _consistent(self) -> RocketMQSettings:
        if bool(self.name_servers) == bool(self.name_server_url):
            raise ValueError("give either name_servers or name_server_url")
        # Settings are kept and shown as they stand.
        if "@" in self.name_server_url.partition("://")[2].partition("/")[0]:
            raise ValueError("a user or password must not stand in name_server_url")
        if (self.access_key is None) != (self.secret_key is None):
            raise ValueError("access_key and secret_key go together")
        return self

    def address(self) -> ClusterAddress:
        return ClusterAddress(self.name_servers, self.name_server_url, self.cluster_name, self.address_map)

    def security(self) -> Security:
        def credentials() -> Credentials | None:
            if self.access_key is None or self.secret_key is None:
                return None
            token = self.security_token.read() if self.security_token is not None else ""
            return Credentials(self.access_key.read(), self.secret_key.read(), token)

        return Security(credentials, self.tls.context, self.tls.server_name)

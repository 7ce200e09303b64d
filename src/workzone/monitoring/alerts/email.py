"""Alarms by e-mail."""

from __future__ import annotations

import ipaddress
import smtplib
import ssl
from collections.abc import Sequence
from email.message import EmailMessage
from typing import Literal, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from workzone.monitoring.alerts.base import Alarm, DeliveryError, Notifier, body, subject
from workzone.monitoring.alerts.http import secret

_ADDRESS = r"^[^\s@]+@[^\s@]+$"


def _this_machine(host: str) -> bool:
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


class Email(Notifier):
    """One message by SMTP; a password goes to another machine only where the connection is encrypted."""

    kind: Literal["email"] = "email"
    host: str = Field(min_length=1)
    port: int = Field(default=587, ge=1, le=65535)
    security: Literal["starttls", "tls", "none"] = Field(
        default="starttls", description="none is for a relay without sign-in"
    )
    sender: str = Field(pattern=_ADDRESS)
    to: tuple[str, ...] = Field(min_length=1)
    user: str = ""
    password_env: str = Field(default="", description="environment variable with the password")

    @model_validator(mode="after")
    def _no_password_in_clear(self) -> Self:
        if self.user and self.security == "none" and not _this_machine(self.host):
            raise PydanticCustomError(
                "password_in_clear",
                "with security 'none' the password of {user} would go to {host} in clear",
                {
                    "user": self.user,
                    "host": self.host,
                    "fix": "say security 'starttls' (port 587) or 'tls' (port 465), or leave user out where the "
                    "relay asks for no sign-in; only a relay on this machine gets a password in clear",
                },
            )
        return self

    def send(self, alarms: Sequence[Alarm]) -> None:
        """Send to all receivers; a server that refuses for good is not asked again."""
        message = EmailMessage()
        message["Subject"], message["From"], message["To"] = subject(alarms), self.sender, ", ".join(self.to)
        message.set_content(body(alarms))
        password = secret(self.password_env) if self.user else ""
        try:
            with self._connect() as server:
                if self.user:
                    server.login(self.user, password)
                refused = server.send_message(message)
        except smtplib.SMTPResponseException as error:
            raise DeliveryError(f"{self.host} answered {error.smtp_code}", retry=error.smtp_code < 500) from None
        except smtplib.SMTPRecipientsRefused as error:
            again = any(code < 500 for code, _ in error.recipients.values())
            raise DeliveryError(f"{self.host} refused the receivers", retry=again) from None
        except (smtplib.SMTPException, OSError) as error:
            raise DeliveryError(f"{self.host} cannot be reached: {type(error).__name__}") from None
        if refused:
            raise DeliveryError(f"{self.host} refused {', '.join(refused)}", retry=False)

    def _connect(self) -> smtplib.SMTP:
        if self.security == "tls":
            context = ssl.create_default_context()
            return smtplib.SMTP_SSL(self.host, self.port, timeout=self.timeout, context=context)
        server = smtplib.SMTP(self.host, self.port, timeout=self.timeout)
        if self.security == "starttls":
            try:
                server.starttls(context=ssl.create_default_context())
            except (smtplib.SMTPException, OSError):
                server.close()
                raise
        return server

"""Chromium for tests that look at a page as a person does."""

from __future__ import annotations

import re
import shutil
import subprocess
from html import unescape
from pathlib import Path

CHROMIUM = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None)
FLAGS = (
    '--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
    '--disable-background-networking', '--disable-component-update', '--disable-sync', '--disable-extensions',
)  # fmt: skip


def opened(address: str, profile: Path, *flags: str) -> tuple[dict[str, str], list[str]]:
    """The data attributes of a page's root element once it stands still, and what it wrote to the console.

    Args:
        address: The page, with its fragment.
        profile: An empty folder for the browser.
        flags: More options of Chromium.
    """
    assert CHROMIUM is not None
    command = [
        CHROMIUM, *FLAGS, '--force-prefers-reduced-motion', '--enable-logging=stderr', '--virtual-time-budget=20000',
        f'--user-data-dir={profile}', *flags, '--dump-dom', address,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    root = re.search(r'<html[^>]*>', done.stdout)
    assert root is not None, done.stderr
    data = {key: unescape(value) for key, value in re.findall(r'data-(\w+)="([^"]*)"', root.group())}
    return data, [line for line in done.stderr.splitlines() if 'CONSOLE' in line]

"""The film viewer, the calipers and posting over a bad link, in a real browser; axe-core on the pages they stand on.

Needs Debian's ``chromium``; skipped, saying so, where there is none. ``SANGLOC_TEST_SHOTS`` names a folder to leave
pictures in.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from standin import StandIn

from data_specs.problems import message
from data_specs.vocabulary import LANGUAGES, Language
from service.texts import text
from tests.service.page_fixture import OWNER, Site, made_film, made_recording, store_visits

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: no page is tried")
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright  # noqa: E402

from tests.e2e.test_browser import CHROMIUM, DESK, FLAGS, PHONE, difference, painted  # noqa: E402
from tests.service.serving import ADMIN, serving, settings_for  # noqa: E402

LEAST_BODY_KB = 30

"""The reviewer's page in a browser, checked by axe-core: no serious fault, in light and dark, wide and narrow.

axe-core is no dependency: `npm pack axe-core`, unpack it, and set ACCLIMATE_AXE to its axe.min.js.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from html import unescape
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent / "core"))  # made_audit
from made_audit import HOSTILE, audited, data_side, models, of_sites, pipeline_run, predictions

from tasks.core.bias_page import render

AXE = os.environ.get("ACCLIMATE_AXE", "")
BROWSER = shutil.which("chromium") or shutil.which("google-chrome") or ""
RUN = """<script>{axe}</script><script>axe.run(document, {{resultTypes: ["violations"]}}).then(found => {{
const told = document.createElement("pre"); told.id = "axe-result";
told.textContent = JSON.stringify(found.violations.map(v => [v.impact, v.id, v.nodes[0].html.slice(0, 200)]));
document.body.appendChild(told); }});</script>"""

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not BROWSER, reason="neither chromium nor google-chrome is installed"),
    pytest.mark.skipif(not Path(AXE).is_file(), reason="ACCLIMATE_AXE does not name axe.min.js of axe-core"),
]


def serious_faults(page: str, folder: Path, *, is_dark: bool = False, width: int = 1200) -> list[str]:
    page = re.sub(r'<meta http-equiv="Content-Security-Policy".*?>', "", page)  # it would keep axe out
    if is_dark:
        page = page.replace("screen and (prefers-color-scheme: dark)", "all")
    script = RUN.format(axe=Path(AXE).read_text(encoding="utf-8"))
    (folder / "page.html").write_text(page.replace("</body>", f"{script}</body>"), encoding="utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--virtual-time-budget=60000"]
    done = subprocess.run(
        [BROWSER, *options, f"--user-data-dir={folder / 'profile'}", f"--window-size={width},2000", "--dump-dom",
         (folder / "page.html").as_uri()],
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    told = re.search(r'<pre id="axe-result">(.*?)</pre>', done.stdout, re.DOTALL)
    assert told, "axe gave no answer"
    return [
        f"{rule}: {html}" for impact, rule, html in json.loads(unescape(told[1])) if impact in ("serious", "critical")
    ]


@pytest.mark.parametrize("is_dark", [False, True])
@pytest.mark.parametrize("width", [1200, 500])
def test_the_page_of_a_run_has_no_serious_fault(tmp_path: Path, is_dark: bool, width: int) -> None:
    page = render(of_sites(pipeline=pipeline_run(), models=models(), **data_side()))
    assert serious_faults(page, tmp_path, is_dark=is_dark, width=width) == []


def test_the_page_of_a_bare_table_with_hostile_names_has_no_serious_fault(tmp_path: Path) -> None:
    assert serious_faults(render(audited(predictions({HOSTILE: (30, 30, 40), "B": (20, 20, 30)}))), tmp_path) == []


def test_a_fault_is_seen(tmp_path: Path) -> None:
    faint = '<p style="color: #ddd; background: #fff">faint</p></main>'
    found = serious_faults(render(of_sites()).replace("</main>", faint), tmp_path)
    assert [told.split(":")[0] for told in found] == ["color-contrast"]

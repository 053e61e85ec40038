"""The audit in short as Markdown: verdict, rules, hidden losses, what was not tested. Text from data can't act as markup."""

from typing import Any

from tasks.core.bias_page import BiasFacts, losses_behind_a_gain, told_rules
from tasks.core.bias_words import OUTCOMES, VERDICTS, percent, plain, points, signed_points

MAX_SENTENCE = 600


def markdown(facts: BiasFacts) -> str:
    """One screen of Markdown (GitHub's tables), ending with a line break."""
    verdict = facts.verdict
    words, to_decide = VERDICTS[verdict["verdict"]]
    lines = [
        f"# {plain(facts.name)}: bias audit",
        "",
        f"**{OUTCOMES[verdict['verdict']]}** – {words}",
        "",
        f"To decide: {to_decide}",
        "",
        f"Found: {plain(verdict['reason'], MAX_SENTENCE)}",
        "",
        *_losses(facts),
        "## Rules",
        "",
        *_rules(verdict["rules"]),
        "",
        f"Intervals at {percent(verdict['confidence'], 0)}, n = {verdict['n']:,} images; rules sha256 "
        f"`{verdict['rules_sha256'][:16]}`. Only required rules make the verdict.",
        "",
        "## Not tested",
        "",
        *(f"- {plain(sentence, MAX_SENTENCE)}" for sentence in verdict["not_tested"]),
    ]
    return "\n".join(lines) + "\n"


def _losses(facts: BiasFacts) -> list[str]:
    alert = losses_behind_a_gain(facts.changes)
    if not alert["rows"]:
        return []
    sure = "beyond what chance explains" if alert["is_shown"] else "maybe: these images can't say for sure"
    told = [
        f"- all images {points(row['overall'])}, **{plain(row['group'])} {points(row['change'])}** "
        f"({signed_points(row['change_low'])} to {signed_points(row['change_high'])}, n = {row['n']:,}; "
        f"{plain(row['column'])}, against {plain(row['baseline'])})"
        for row in alert["rows"]
    ]
    more = [f"- and {alert['n_more']:,} more"] if alert["n_more"] else []
    return [f"**Better over all, worse for some** ({sure}):", "", *told, *more, ""]


def _rules(entries: list[dict[str, Any]]) -> list[str]:
    if not entries:
        return ["No rule was set, so nothing was judged."]
    return [
        "| rule | required | outcome | value (interval) | limit | group | n |",
        "|---|---|---|---|---|---|---:|",
        *(_row(entry) for entry in told_rules(entries)),
    ]


def _row(rule: dict[str, Any]) -> str:
    worst = rule["worst"] or {"group": "none was judged", "n": 0}
    cells = [
        plain(rule["words"], MAX_SENTENCE), "yes" if rule["required"] else "no", OUTCOMES[rule["verdict"]], rule["worst_words"],
        rule["limit_words"], plain(worst["group"]), f"{worst['n']:,}",
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"

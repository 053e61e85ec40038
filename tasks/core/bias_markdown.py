"""The audit in short as Markdown: verdict, rules, hidden losses, what was not tested. Text from data can't act as markup."""

from typing import Any

from tasks.core.bias_columns import draws_words
from tasks.core.bias_page import (
    BiasFacts,
    columns_told,
    deciding_rules,
    findings_of,
    losses_behind_a_gain,
    told_rules,
)
from tasks.core.bias_words import (
    KINDS,
    OUTCOMES,
    VERDICTS,
    found_words,
    is_number,
    percent,
    picked_words,
    plain,
    points,
    signed_points,
)

MAX_SENTENCE, MAX_RULES = 600, 5


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
        *_found(verdict),
        "",
        *_losses(facts),
        "## Where it is worst",
        "",
        *_findings(facts),
        "",
        "## Rules",
        "",
        *_rules(verdict["rules"]),
        "",
        f"Intervals at {percent(verdict['confidence'], 0)}, n = {verdict['n']:,} images; rules sha256 "
        f"`{verdict['rules_sha256'][:16]}`. Only required rules make the verdict.",
        "",
        "## What the groups are",
        "",
        *(f"- **{plain(name)}**: {plain(told, MAX_SENTENCE)}" for name, told in columns_told(facts)),
        "",
        *(f"{plain(sentence, MAX_SENTENCE)}" for sentence in draws_words(verdict["sampling"], facts.origin)),
        "",
        "## Not tested",
        "",
        *(f"- {plain(sentence, MAX_SENTENCE)}" for sentence in verdict["not_tested"]),
    ]
    return "\n".join(lines) + "\n"


def _found(verdict: dict[str, Any]) -> list[str]:
    """What keeps the verdict from being a pass, rule by rule; else its reason."""
    rules = deciding_rules(verdict)
    if not rules:
        return [f"Found: {plain(verdict['reason'], MAX_SENTENCE)}"]
    lines = []
    for rule in rules[:MAX_RULES]:
        start = f"- {plain(rule['name'])}" + (f" ({plain(rule['column'])})" if rule["column"] else "")
        worst = rule["worst"]
        if worst is None or not is_number(worst["low"]):
            lines.append(f"{start}: {plain(rule['reason'], MAX_SENTENCE)}")
            continue
        told = f"{rule['worst_words']}, allowed {rule['limit_words']}, n = {worst['n']:,}"
        more = rule["unless"] or (f"what would decide: {rule['decided_by']}" if rule["decided_by"] else "")
        lines.append(
            f"{start}: **{plain(worst['group'])}** {told}" + (f"; {plain(more, MAX_SENTENCE)}" if more else "")
        )
    rest = len(rules) - MAX_RULES
    return [*lines, f"- and {rest} more required rules"] if rest > 0 else lines


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


def _findings(facts: BiasFacts) -> list[str]:
    """One line per kind of group, the worst of it alone."""
    lines = []
    for one in findings_of(facts):
        line = f"- {KINDS[one['kind']]}: {picked_words(one)}"
        if one["rows"]:
            row = one["rows"][0]
            of_class = f", class {plain(str(row['class']))}" if "recall" in row else ""
            line += f": **{plain(str(row['group']))}** of {plain(str(row['column']))}{of_class}: {found_words(row)}"
        lines.append(line)
    return lines or ["No two groups were large enough to be compared."]


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

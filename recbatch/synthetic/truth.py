"""What cleaning must find in a delivery, from its plan alone, and the configuration to clean it with."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from recbatch.synthetic import calendar, catalogue, columns, vocabulary
from recbatch.synthetic.catalogue import ItemPlan
from recbatch.synthetic.faults import ACCEPTED, FAULTS, OUTCOMES
from recbatch.synthetic.plan import MAIN, Plan
from recbatch.synthetic.shop import Shop
from recbatch.synthetic.tasks import GOOD, ITEMS

READ = "read"


def events_truth(plan: Plan) -> dict[str, Any]:
    """Rows of one part by outcome, by reason (a row may have several) and by what was planted."""
    outcomes = dict.fromkeys(OUTCOMES, 0)
    reasons: Counter[str] = Counter()
    for fault in FAULTS:
        n = plan.planted[fault.name]
        outcomes[fault.outcome] += n
        reasons.update(dict.fromkeys(fault.reasons, n))
    outcomes[ACCEPTED] = plan.rows - sum(n for outcome, n in outcomes.items() if outcome != ACCEPTED)
    planted = {name: n for name, n in plan.planted.items() if n}
    return {READ: plan.rows, **outcomes, "reasons": {code: n for code, n in reasons.items() if n}, "planted": planted}


def items_truth(plan: ItemPlan) -> dict[str, Any]:
    """The same of the catalogue, and the attributes that accepted rows lack."""
    outcomes = plan.outcomes
    found = {READ: sum(outcomes.values()), **outcomes, "reasons": plan.reasons, "planted": plan.planted}
    return found | {"missing": plan.missing}


def expected_rows(plans: dict[str, Plan], items: ItemPlan) -> dict[str, Counter[str]]:
    """What tasks must have counted, by part."""
    found = {}
    for part, plan in plans.items():
        planted = Counter({name: n for name, n in plan.planted.items() if n})
        found[part] = planted + Counter({GOOD: plan.rows - planted.total()})
    found[ITEMS] = Counter({name: n for name, n in items.planted.items() if n}) + Counter({GOOD: items.shop.items})
    return found


def overlay(shop: Shop, plan: Plan, target: Path) -> dict[str, Any]:
    """The configuration that reads the delivery at `target` and cleans it; it names no warehouse."""
    time: dict[str, Any] = {"unit": shop.time, "earliest": f"{shop.earliest}", "latest": f"{shop.latest}"}
    if shop.time == "text":
        time |= {"format": "yyyy-MM-dd HH:mm:ss", "zone": calendar.ZONE}
    day, minute = plan.limits
    return {
        "input": {
            "events": {
                "path": f"{target / MAIN}",
                "format": shop.format,
                "columns": {
                    "user_id": columns.USER,
                    "item_id": columns.ITEM,
                    "event_time": columns.TIME,
                    "event_type": columns.TYPE,
                    "quantity": columns.QUANTITY,
                    "price": columns.PRICE,
                    "basket_id": columns.VISIT,
                    "query": columns.QUERY,
                },
                "time": time,
                "event_types": dict(vocabulary.EVENT_TYPES),
            },
            "items": {
                "path": f"{target / ITEMS}",
                "format": shop.format,
                "item_id": catalogue.ID,
                "title": catalogue.TITLE,
                "valid_from": catalogue.LAUNCHED,
                "valid_to": catalogue.WITHDRAWN,
                "time": {"format": "yyyy-MM-dd"},
                "attributes": {
                    "category": {"source": catalogue.CATEGORY},
                    "brand": {"source": catalogue.BRAND, "missing": "mode"},
                    "tags": {"source": catalogue.TAGS, "separator": "|"},
                    "list_price": {"source": catalogue.PRICE, "kind": "number"},
                    "weight_grams": {"source": catalogue.WEIGHT, "kind": "number", "missing": "median"},
                },
            },
        },
        "cleaning": {
            "unknown_items": "reject",
            "bots": {"max_events_a_day": day, "max_events_a_minute": minute},
            "quantity": {"strategy": "constant", "value": 1.0},
            "price": "keep",
        },
    }

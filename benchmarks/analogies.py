"""Analogies that State of the Union addresses can answer: every pair of pairs of a section is a question.

Run: python benchmarks/analogies.py runs/word2vec_speeches
"""

from __future__ import annotations

import sys

PAIRS = {
    "plural": (
        "state states, nation nations, country countries, law laws, treaty treaties, tax taxes, ship ships, "
        "child children, man men, woman women, farmer farmers, worker workers, family families, school schools, "
        "bank banks, river rivers, city cities, company companies, power powers, right rights, citizen citizens, "
        "war wars, army armies, port ports, vessel vessels, island islands, industry industries, program programs, "
        "year years, job jobs, business businesses, home homes, problem problems, question questions, "
        "principle principles, officer officers, soldier soldiers, road roads, railroad railroads, court courts, "
        "price prices, province provinces, republic republics, tribe tribes, claim claims"
    ),
    "nationality": (
        "spain spanish, france french, britain british, germany german, mexico mexican, japan japanese, "
        "china chinese, russia russian, england english, europe european, america american, italy italian, "
        "chile chilean, cuba cuban, korea korean, canada canadian, brazil brazilian, turkey turkish, "
        "vietnam vietnamese, iraq iraqi"
    ),
    "past tense": (
        "make made, go went, take took, give gave, see saw, find found, receive received, provide provided, "
        "increase increased, continue continued, begin began, become became, know knew, show showed, build built, "
        "send sent, say said, keep kept, bring brought, pay paid"
    ),
    "adverb": (
        "great greatly, general generally, certain certainly, full fully, entire entirely, free freely, "
        "rapid rapidly, recent recently, equal equally, direct directly, final finally, immediate immediately, "
        "large largely, clear clearly, natural naturally, particular particularly, fair fairly"
    ),
    "present participle": (
        "make making, give giving, take taking, keep keeping, build building, bring bringing, provide providing, "
        "increase increasing, use using, work working, continue continuing, meet meeting, establish establishing, "
        "maintain maintaining, carry carrying, pay paying, develop developing, grow growing"
    ),
}


def questions() -> list[str]:
    """The questions in the format of word2vec's questions-words.txt."""
    lines = []
    for section, text in PAIRS.items():
        pairs = text.split(", ")
        lines += [f": {section}", *(f"{a} {b}" for a in pairs for b in pairs if a != b)]
    return lines


if __name__ == "__main__":
    from jaxgen.words.vectors import of_run

    for section, score in of_run(sys.argv[1]).analogies(questions()).items():
        print(f"{section:20} {score.correct:5} of {score.asked:5}  {100 * score.accuracy:5.1f} %")

"""Search as a viewer types it on a remote control: what comes first, in a dozen languages."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from edged.feed import cbor
from edged.feed.schema import CollectionSchema, Schema
from edged.replica.indexes import terms
from edged.replica.indexes.spelling import WordList, near
from edged.replica.layers.question import Question
from edged.replica.reader import Replica
from edged.replica.view import View
from edged.replica.writer import Writer
from edged.replica.writing.compaction import MergePolicy
from tests.replica.feeds import Publisher, Records

# Real titles, most of them of the films that `benchmarks/search.py` takes, with those that could be taken for them.
TITLES = """
The Godfather|Godfather of Harlem|The Godfather Part II|Disco Godfather|The Matrix|The Matrix Reloaded|Animatrix
Spider-Man|Spider-Man 2|Along Came a Spider|The Man|WALL-E|Wall Street|The Wall|Tom & Jerry: The Movie|Tom and Huck
Fast & Furious|The Fast and the Furious|X-Men|Men in Black|Superman|Super Mario Bros.|Iron Man|The Iron Giant
China O'Brien|Schindler's List|Ocean's Eleven|S.W.A.T.|Swat Valley|E.T. the Extra-Terrestrial|The Terminator
Terminator 2: Judgment Day|Jurassic Park|Park Row|Forrest Gump|Forest Warrior|Pulp Fiction|Casablanca|Casa|Titanic
Raise the Titanic|The Shawshank Redemption|Redemption|Up|Upgrade|Up in the Air|Alien|Aliens|Alien Nation|Star Wars
A Star Is Born|Stardust|2001: A Space Odyssey|Rock 'n' Roll High School|Don't Look Now|Blade Runner 2049|Blade
Les Misérables|L'Auberge espagnole|Le Fabuleux Destin d'Amélie Poulain|La Haine|Les 400 coups|Jules et Jim|Jim
Le conseguenze dell'amore|L'amour|Ladri di biciclette|La dolce vita|C'era una volta il West|West Side Story
Das Leben der Anderen|Lola rennt|Der Himmel über Berlin|Das weiße Band|El laberinto del fauno|Volver|Año bisiesto
Mujeres al borde de un ataque de nervios|Cidade de Deus|Central do Brasil|Człowiek z żelaza|Popiół i diament
Kış Uykusu|Bir Zamanlar Anadolu'da|Κυνόδοντας|Ταξίδι στα Κύθηρα|Броненосец Потёмкин|Летят журавли|Сталкер
七人の侍|千と千尋の神隠し|となりのトトロ|기생충|올드보이|花樣年華|दिलवाले दुल्हनिया ले जायेंगे|लगान|باب الحديد|كفرناحوم
ואלס עם באשיר|Fanny och Alexander|Smultronstället|Flåklypa Grand Prix|Het meisje met het rode haar
"""
CAST = {
    "Alien Nation": ["James Caan"],
    "Forest Warrior": ["Chuck Norris"],
    "Jim": ["Tom Hanks"],
    "Forrest Gump": ["Tom Hanks", "Robin Wright"],
    "Park Row": ["Gene Evans", "Mary Welch"],
    "Casa": ["Jean-Claude Van Damme", "Conan O'Brien"],
    "The Wall": ["Penélope Cruz"],
}
FIRST = {
    # joined, hyphenated, with a space
    "spiderman": "Spider-Man", "spider-man": "Spider-Man", "spider man": "Spider-Man", "spiderman 2": "Spider-Man 2",
    "wall-e": "WALL-E", "walle": "WALL-E", "wall e": "WALL-E", "xmen": "X-Men", "x men": "X-Men",
    "super man": "Superman", "iron-man": "Iron Man", "ironman": "Iron Man", "bladerunner": "Blade Runner 2049",
    # apostrophes and dots
    "auberge": "L'Auberge espagnole", "l'auberge": "L'Auberge espagnole", "l auberge": "L'Auberge espagnole",
    "amore": "Le conseguenze dell'amore", "dell'amore": "Le conseguenze dell'amore",
    "brien": "China O'Brien", "o'brien": "China O'Brien", "obrien": "China O'Brien", "o’brien": "China O'Brien",
    "schindlers list": "Schindler's List", "oceans eleven": "Ocean's Eleven", "dont look": "Don't Look Now",
    "swat": "S.W.A.T.", "et": "E.T. the Extra-Terrestrial", "amelie": "Le Fabuleux Destin d'Amélie Poulain",
    # "&" and "and"
    "tom and jerry": "Tom & Jerry: The Movie", "tom & jerry": "Tom & Jerry: The Movie",
    "fast and furious": "Fast & Furious", "fast & furious": "Fast & Furious",
    # one typing error
    "terminatr": "The Terminator", "godfahter": "The Godfather", "jurasic park": "Jurassic Park",
    "forest gump": "Forrest Gump", "pulp ficton": "Pulp Fiction", "casablnaca": "Casablanca", "tittanic": "Titanic",
    "shawshenk": "The Shawshank Redemption", "matrx": "The Matrix", "bertin himmel": "Der Himmel über Berlin",
    # what one has typed so far, whole words and titles first
    "up": "Up", "upg": "Upgrade", "alien": "Alien", "star w": "Star Wars", "godfather": "The Godfather",
    "the god": "The Godfather", "matr": "The Matrix", "2001": "2001: A Space Odyssey", "tom hanks": "Forrest Gump",
    # a dozen languages
    "miserables": "Les Misérables", "das weisse band": "Das weiße Band", "ano bisiesto": "Año bisiesto",
    "czlowiek z zelaza": "Człowiek z żelaza", "kis uykusu": "Kış Uykusu", "anadoluda": "Bir Zamanlar Anadolu'da",
    "κυνοδοντασ": "Κυνόδοντας", "κυθηρα": "Ταξίδι στα Κύθηρα", "потемкин": "Броненосец Потёмкин",
    "сталкир": "Сталкер", "千尋": "千と千尋の神隠し", "トトロ": "となりのトトロ", "올드": "올드보이",
    "दुल्हनिया": "दिलवाले दुल्हनिया ले जायेंगे", "الحديد": "باب الحديد", "באשיר": "ואלס עם באשיר",
    "smultronstallet": "Smultronstället", "flaklypa": "Flåklypa Grand Prix", "cidade": "Cidade de Deus",
    "laberinto": "El laberinto del fauno", "meisje": "Het meisje met het rode haar",
    "c'era una volta": "C'era una volta il West", "400 coups": "Les 400 coups",
}  # fmt: skip
AT_LEAST = 57  # of 60
SCHEMA = Schema({"titles": CollectionSchema(("year",), ("title", "cast"), order=("year",), rank="votes")})
UNRANKED = Schema({"titles": CollectionSchema(("year",), ("title", "cast"), order=("year",))})
MERGE = MergePolicy(fresh_packs=0, least_bytes=1 << 40)


def records(names: list[str], **more: Any) -> Records:
    return {
        ("titles", name): cbor.encode({"title": name, "cast": CAST.get(name, []), "year": 1990 + len(name) % 5, **more})
        for name in names
    }


def opened(root: Path, schema: Schema, parts: list[Records]) -> View:
    """Parts: what is in the base, then what each hop brings; the first of these is merged into a middle pack."""
    publisher = Publisher({"core": dict(parts[0])})
    with Writer.open(root, "catalog") as writer:
        publisher.snapshot_into(writer, schema=schema)
        for number, part in enumerate(parts[1:]):
            publisher.version += 1
            with writer.stage() as staging:
                staging.apply_changes("core", publisher.version, publisher.apply("core", dict(part)))
                staging.commit(publisher.version, b"head", as_of=1, fresh_s=1, expires_s=1)
            if not number:
                writer.compact(policy=MERGE)
    return Replica(root)["catalog"].view()


@pytest.fixture(scope="module", params=["base", "layers"])
def view(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> View:
    names = [name for line in TITLES.split("\n") for name in line.split("|") if name]
    parts = [names] if request.param == "base" else [names[::3], names[1::3], names[2::3]]
    return opened(tmp_path_factory.mktemp("search"), UNRANKED, [records(part) for part in parts])


def test_what_must_come_first_does(view: View) -> None:
    assert len(FIRST) >= 60
    found = {text: next((key for key, _ in view.search("titles", text, limit=3)), None) for text in FIRST}
    wrong = {text: (found[text], key) for text, key in FIRST.items() if found[text] != key}
    assert len(wrong) <= len(FIRST) * (60 - AT_LEAST) // 60, wrong
    assert not wrong, "even of the three in sixty that may be"


@pytest.mark.parametrize("text", ["matrx", "spiderman", "the", "tom hanks", "shawshenk"])
def test_a_search_goes_with_conditions_pages_and_counts(view: View, text: str) -> None:
    every = [match.key for match in view.ask("titles", Question(text=text))]
    assert every
    assert view.tally("titles", Question(text=text)).total == len(every)
    pages, question = [], Question(text=text)
    while page := list(view.ask("titles", question, limit=2)):
        pages += [match.key for match in page]
        question = question._replace(after=page[-1].cursor(question))
    assert pages == every
    for year in range(1990, 1995):
        asked = Question(where={"year": year}, text=text)
        assert [match.key for match in view.ask("titles", asked)] == [
            key for key in every if 1990 + len(key) % 5 == year
        ]
    ordered = [match.key for match in view.ask("titles", Question(text=text, order="-year"))]
    assert sorted(ordered) == sorted(every)


def test_words_are_taken_as_typed_wherever_anything_holds_them(view: View) -> None:
    assert [key for key, _ in view.search("titles", "casa")] == ["Casa", "Casablanca"]
    assert {key for key, _ in view.search("titles", "aliens")} == {"Aliens"}, "no Alien, which one error makes of it"
    assert [key for key, _ in view.search("titles", "alein")][:1] == ["Alien"]
    assert view.search("titles", "jimm") == [], "too short for an error"
    assert view.search("titles", "xylophone") == []
    assert view.search("titles", "2050") == [], "numbers are not misspelt"


@pytest.mark.parametrize("split", [False, True])
def test_what_is_popular_comes_first_among_equals(tmp_path: Path, split: bool) -> None:
    votes = {"Alien Nation": 5, "Alien": 900, "Aliens": 2_000_000, "Alien Autopsy": 20.5, "My Alien": 9_999_999}
    made = [records([name], votes=count) for name, count in votes.items()]
    made += [records(["Alien Zone"]), records(["Alien Abduction"], votes="many"), records(["Alien Army"], votes=True)]
    whole: Records = {key: value for part in made for key, value in part.items()}
    parts = [dict(list(whole.items())[:3]), *made[3:5], {k: v for part in made[5:] for k, v in part.items()}]
    view = opened(tmp_path, SCHEMA, parts if split else [whole])
    found = [key for key, _ in view.search("titles", "alien")]
    begins = ["Alien", "Alien Autopsy", "Alien Nation", "Alien Abduction", "Alien Army", "Alien Zone"]
    assert found == [*begins, "Aliens", "My Alien"]
    assert [key for key, _ in view.search("titles", "alie", limit=2)] == ["Aliens", "Alien"]
    assert [key for key, _ in view.search("titles", "alein")][:2] == ["Alien", "Alien Autopsy"]


def one_error(typed: str, word: str) -> bool:
    """Whether one letter wrong, missing, too much, or two exchanged make the one of the other."""
    if abs(len(typed) - len(word)) > 1 or typed == word:
        return False
    same = next((at for at, (a, b) in enumerate(zip(typed, word, strict=False)) if a != b), min(len(typed), len(word)))
    a, b = typed[same:], word[same:]
    return a[1:] == b[1:] or a[1:] == b or a == b[1:] or (a[2:] == b[2:] and a[:2] == b[1::-1])


@pytest.mark.parametrize("letters", ["ab", "abc", "абв", "aé\u0430"])
def test_words_near_are_those_that_one_error_makes(letters: str) -> None:
    chance = random.Random(5)
    words = sorted({"".join(chance.choices(letters, k=chance.randint(1, 7))).encode() for _ in range(300)})
    blocks = {letter: ord(letter) >> 8 for letter in letters}
    for _ in range(300):
        typed = "".join(chance.choices(letters, k=chance.randint(1, 6)))
        runs = near(WordList(words), typed)
        found = {words[run.low].decode() for run in runs if run.whole}
        expected = {word.decode() for word in words if one_error(typed, word.decode())}
        if len(set(blocks.values())) > 1:  # an error stays in its block of letters
            assert found - {typed} <= expected
        else:
            assert found - {typed} == expected
        for word in (words[number].decode() for run in runs for number in range(run.low, run.high)):
            assert any(one_error(typed, word[:size]) for size in range(len(word) + 1)), (typed, word)


def test_titles_have_forms_beside_their_words() -> None:
    forms = {
        "L'Auberge espagnole": ["auberge"],
        "Dell’amore": ["amore"],
        "Don't": [],
        "Spider-Man: Far-Out": ["spiderman", "farout"],
        "WALL·E": ["walle"],
        "2000-2001": [],
        "Tom & Jerry": ["and"],
        "S.W.A.T.": [],
        "plain words": [],
        "a-" * 30 + "b": [],
    }
    assert {text: list(terms.other_forms(text)) for text in forms} == forms
    assert list(terms.first_words("The Godfather")) == ["the", "godfather"]
    assert list(terms.first_words("Spider-Man 2")) == ["spider", "spider", "spiderman"]
    assert list(terms.first_words("L'Auberge x")) == ["lauberge", "lauberge", "auberge"]
    assert list(terms.first_words("—")) == []
    assert terms.words("दिलवाले दुल्हनिया") == ["दिलवाले", "दुलहनिया"]

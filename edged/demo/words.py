"""Words from which the made-up catalogue composes its titles, names and texts. No real person, place or brand is meant.

NOUNS: the English noun of a title, then the same with its article in German, French, Spanish and Portuguese.
"""

from __future__ import annotations

LANGUAGES = ("de", "fr", "es", "pt")

NOUNS: tuple[tuple[str, str, str, str, str], ...] = (
    ("Lighthouse", "Der Leuchtturm", "Le Phare", "El Faro", "O Farol"),
    ("Harbour", "Der Hafen", "Le Port", "El Puerto", "O Porto"),
    ("Bridge", "Die Brücke", "Le Pont", "El Puente", "A Ponte"),
    ("Orchard", "Der Obstgarten", "Le Verger", "El Huerto", "O Pomar"),
    ("Winter", "Der Winter", "L’Hiver", "El Invierno", "O Inverno"),
    ("Summer", "Der Sommer", "L’Été", "El Verano", "O Verão"),
    ("Letter", "Der Brief", "La Lettre", "La Carta", "A Carta"),
    ("Witness", "Der Zeuge", "Le Témoin", "El Testigo", "A Testemunha"),
    ("Garden", "Der Garten", "Le Jardin", "El Jardín", "O Jardim"),
    ("River", "Der Fluss", "La Rivière", "El Río", "O Rio"),
    ("Mountain", "Der Berg", "La Montagne", "La Montaña", "A Montanha"),
    ("Station", "Der Bahnhof", "La Gare", "La Estación", "A Estação"),
    ("Clockmaker", "Die Uhrmacherin", "L’Horloger", "El Relojero", "O Relojoeiro"),
    ("Cartographer", "Die Kartografin", "Le Cartographe", "La Cartógrafa", "O Cartógrafo"),
    ("Heiress", "Die Erbin", "L’Héritière", "La Heredera", "A Herdeira"),
    ("Detective", "Die Ermittlerin", "L’Enquêtrice", "La Detective", "A Detetive"),
    ("Captain", "Der Kapitän", "Le Capitaine", "El Capitán", "O Capitão"),
    ("Tide", "Die Flut", "La Marée", "La Marea", "A Maré"),
    ("Storm", "Der Sturm", "La Tempête", "La Tormenta", "A Tempestade"),
    ("Silence", "Die Stille", "Le Silence", "El Silencio", "O Silêncio"),
    ("Shadow", "Der Schatten", "L’Ombre", "La Sombra", "A Sombra"),
    ("Mirror", "Der Spiegel", "Le Miroir", "El Espejo", "O Espelho"),
    ("Island", "Die Insel", "L’Île", "La Isla", "A Ilha"),
    ("Circus", "Der Zirkus", "Le Cirque", "El Circo", "O Circo"),
    ("Promise", "Das Versprechen", "La Promesse", "La Promesa", "A Promessa"),
    ("Debt", "Die Schuld", "La Dette", "La Deuda", "A Dívida"),
    ("Daughter", "Die Tochter", "La Fille", "La Hija", "A Filha"),
    ("Brother", "Der Bruder", "Le Frère", "El Hermano", "O Irmão"),
    ("Violin", "Die Geige", "Le Violon", "El Violín", "O Violino"),
    ("Archive", "Das Archiv", "Les Archives", "El Archivo", "O Arquivo"),
    ("Signal", "Das Signal", "Le Signal", "La Señal", "O Sinal"),
    ("Colony", "Die Kolonie", "La Colonie", "La Colonia", "A Colônia"),
    ("Engine", "Die Maschine", "La Machine", "La Máquina", "A Máquina"),
    ("Kitchen", "Die Küche", "La Cuisine", "La Cocina", "A Cozinha"),
    ("Fox", "Der Fuchs", "Le Renard", "El Zorro", "A Raposa"),
    ("Heron", "Der Reiher", "Le Héron", "La Garza", "A Garça"),
    ("Wolves", "Die Wölfe", "Les Loups", "Los Lobos", "Os Lobos"),
    ("Thieves", "Die Diebe", "Les Voleurs", "Los Ladrones", "Os Ladrões"),
    ("Neighbours", "Die Nachbarn", "Les Voisins", "Los Vecinos", "Os Vizinhos"),
    ("Night", "Die Nacht", "La Nuit", "La Noche", "A Noite"),
    ("Road", "Die Straße", "La Route", "El Camino", "A Estrada"),
)

ADJECTIVES = (
    *("Silent", "Last", "Crooked", "Golden", "Hidden", "Burning", "Second", "Borrowed", "Frozen", "Distant", "Red"),
    *("Forgotten", "Paper", "Hollow", "Restless", "Northern", "Secret", "Broken", "Gentle", "Invisible", "Long"),
    *("Salt", "Blue", "Midnight", "Honest", "Unfinished", "Quiet", "Wandering", "Glass", "Early", "Stolen"),
)

GENRES = (
    *("Drama", "Comedy", "Crime", "Thriller", "Adventure", "Documentary", "Animation", "Family", "Science Fiction"),
    *("Romance", "Mystery", "Horror", "History", "Music", "Fantasy", "War", "Western", "Sport"),
)

# A place or a family name is one of each, so there are as many as the product of the lengths.
PLACE_STARTS = (
    *("Vel", "Mar", "Tor", "Bel", "Lun", "Os", "Kar", "Ned", "Sil", "Dra", "Fen", "Hol", "Is", "Jor", "Rav", "Nor"),
    *("Al", "Bry", "Cal", "Dun", "El", "Gra", "Hes", "Kel", "Lor", "Mon", "Pel", "Quen", "Ros", "Sten", "Ul"),
)
PLACE_MIDDLES = ("a", "ba", "de", "fi", "ga", "le", "mo", "na", "ri", "so", "ta", "vi", "ze")
PLACE_ENDS = ("brück", "dorf", "field", "gard", "holm", "lia", "mere", "na", "rra", "stad", "vale", "wick", "zón", "ça")

GIVEN_NAMES = (
    *("Ilana", "Marek", "Dorothée", "Tomé", "Senna", "Anouk", "Ravi", "Jovana", "Emeka", "Lívia", "Oskar", "Yuna"),
    *("Piet", "Amara", "Caio", "Zuzana", "Halim", "Freya", "Nuno", "Ksenia", "Bao", "Ines", "Lukas", "Tamsin"),
    *("Idris", "Marisol", "Aino", "Viktor", "Leila", "Goran", "Chiara", "Mateus", "Runa", "Dilan", "Elif"),
)
FAMILY_STARTS = ("Dor", "Kal", "Ver", "Mon", "Sab", "Tre", "Lind", "Oka", "Bar", "Fer", "Gol", "Han", "Ress", "Wint")
FAMILY_MIDDLES = ("", "a", "en", "i", "o", "ul", "er", "an", "el")
FAMILY_ENDS = ("vek", "mann", "ssen", "ques", "ström", "ida", "rov", "ton", "ault", "ini", "escu", "moto", "wala")

TRADES = (
    *("a retired clockmaker", "a young nurse", "a ferry pilot", "a court stenographer", "a disgraced chef"),
    *("a travelling piano tuner", "an archivist", "a bee-keeper", "a night-shift radio host", "a junior prosecutor"),
    *("a mountain guide", "a school inspector", "a puppet maker", "an exhausted paramedic", "a map restorer"),
)
EVENTS = (
    *("finds a letter that was never delivered", "inherits a house that nobody will enter", "is asked to lie in court"),
    *("witnesses a theft that officially never happened", "loses a bet that was not theirs to make"),
    *("takes in a stranger on the longest night of the year", "hears a voice on a dead frequency"),
    *("discovers that the town's founding story is false", "agrees to one last crossing"),
)
TURNS = (
    *("What begins as a favour soon divides the whole valley.", "Every answer costs another friend."),
    *("As the ice closes in, old loyalties come apart.", "The nearer the truth comes, the less anyone wants it."),
    *(
        "Meanwhile a quiet accountant is keeping a second set of books.",
        "Only the youngest of them notices the pattern.",
    ),
    *("Three summers later, the same question returns.", "It takes a storm to bring them into one room."),
)
CLOSES = (
    *("A story about what families choose not to say.", "A warm, wry tale of second chances."),
    *("Told in a single night, almost in real time.", "With a score recorded in an abandoned mill."),
    *("Shot over four seasons on the coast of {place}.", "Based on the stage play of the same name."),
)
ROLES = (
    *("the Captain", "Inspector {family}", "Aunt {given}", "Doctor {family}", "the Stranger", "{given}", "Old {given}"),
    *("the Notary", "{given} {family}", "Sister {given}", "the Boy", "the Caretaker", "Judge {family}"),
)
ROWS = (
    *("Trending now", "New this week", "Because it is raining", "Award winners", "Films under 90 minutes"),
    *("Series to start tonight", "Hidden gems", "For the whole family", "Leaving soon", "Critics' choice"),
    *("From the archive", "Slow television", "Edge of your seat", "Laugh out loud", "Stories from the coast"),
    *("Directed by newcomers", "Watch again", "Late night", "Short and good", "Sunday afternoon"),
)
CHANNELS = (
    "One",
    "Cinema",
    "Series",
    "Kids",
    "Docs",
    "Sport",
    "Music",
    "News",
    "Nature",
    "Classics",
    "Kitchen",
    "Arts",
)
FILLERS = ("News", "Weather and traffic", "Kitchen stories", "Regional magazine", "The night programme", "Morning show")

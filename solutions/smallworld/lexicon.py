"""The words and facts of the embedded world.

Facts (which landmark stands in which city, which city in which country, which language is spoken there)
are true of our own world where it has them; the rest is ordinary vocabulary. Everything is a plain table, so that a
chapter can ask the model about any of it.
"""

from typing import NamedTuple


class Country(NamedTuple):
    """What the world knows of a country."""

    nationality: str
    language: str
    currency: str
    continent: str
    capital: str


COUNTRIES: dict[str, Country] = {
    name: Country(*rest.split(","))
    for name, rest in (
        row.split(":")
        for row in """
France:French,French,euro,Europe,Paris
England:British,English,pound,Europe,London
Scotland:Scottish,English,pound,Europe,Edinburgh
Italy:Italian,Italian,euro,Europe,Rome
Germany:German,German,euro,Europe,Berlin
Spain:Spanish,Spanish,euro,Europe,Madrid
Portugal:Portuguese,Portuguese,euro,Europe,Lisbon
Greece:Greek,Greek,euro,Europe,Athens
Turkey:Turkish,Turkish,lira,Asia,Ankara
Russia:Russian,Russian,ruble,Europe,Moscow
Austria:Austrian,German,euro,Europe,Vienna
Denmark:Danish,Danish,krone,Europe,Copenhagen
Sweden:Swedish,Swedish,krona,Europe,Stockholm
Belgium:Belgian,Dutch,euro,Europe,Brussels
Japan:Japanese,Japanese,yen,Asia,Tokyo
China:Chinese,Chinese,yuan,Asia,Beijing
India:Indian,Hindi,rupee,Asia,Delhi
Thailand:Thai,Thai,baht,Asia,Bangkok
Korea:Korean,Korean,won,Asia,Seoul
Australia:Australian,English,dollar,Oceania,Canberra
Canada:Canadian,English,dollar,America,Ottawa
America:American,English,dollar,America,Washington
Brazil:Brazilian,Portuguese,real,America,Brasilia
Mexico:Mexican,Spanish,peso,America,Mexico City
Argentina:Argentine,Spanish,peso,America,Buenos Aires
Egypt:Egyptian,Arabic,pound,Africa,Cairo
Morocco:Moroccan,Arabic,dirham,Africa,Rabat
Jordan:Jordanian,Arabic,dinar,Asia,Amman
Kenya:Kenyan,Swahili,shilling,Africa,Nairobi
Poland:Polish,Polish,zloty,Europe,Warsaw
Norway:Norwegian,Norwegian,krone,Europe,Oslo
Ireland:Irish,English,euro,Europe,Dublin
Hungary:Hungarian,Hungarian,forint,Europe,Budapest
Vietnam:Vietnamese,Vietnamese,dong,Asia,Hanoi
""".strip().splitlines()
    )
}

CITIES: dict[str, str] = {
    city.strip(): country
    for country, cities in (
        row.split(":")
        for row in """
France:Paris,Lyon,Marseille
England:London,Oxford,Manchester
Scotland:Edinburgh
Italy:Rome,Florence,Venice,Pisa,Milan,Naples
Germany:Berlin,Cologne,Munich,Hamburg
Spain:Madrid,Barcelona,Granada
Portugal:Lisbon,Porto
Greece:Athens
Turkey:Istanbul,Ankara
Russia:Moscow
Austria:Vienna
Denmark:Copenhagen
Sweden:Stockholm
Belgium:Brussels
Japan:Tokyo,Kyoto,Osaka
China:Beijing,Shanghai
India:Delhi,Agra,Mumbai
Thailand:Bangkok
Korea:Seoul
Australia:Sydney,Melbourne,Canberra
Canada:Toronto,Ottawa
America:New York,Washington,Chicago,Boston
Brazil:Rio,Brasilia
Mexico:Mexico City
Argentina:Buenos Aires
Egypt:Cairo
Morocco:Rabat
Jordan:Amman
Kenya:Nairobi
Poland:Warsaw
Norway:Oslo
Ireland:Dublin
Hungary:Budapest
Vietnam:Hanoi
""".strip().splitlines()
    )
    for city in cities.split(",")
}


class Landmark(NamedTuple):
    """A famous place: its name (without article), its city, what kind of thing it is."""

    name: str
    city: str
    kind: str

    @property
    def with_article(self) -> str:
        """The name as it stands at the start of a sentence."""
        return self.name if self.name in NO_ARTICLE else f"The {self.name}"


NO_ARTICLE = {"Big Ben", "Hagia Sophia", "Central Park", "Buckingham Palace", "Edinburgh Castle", "Osaka Castle",
              "Tower Bridge", "Bastille Square", "Red Square"}
LANDMARKS: tuple[Landmark, ...] = tuple(
    Landmark(*row.split(","))
    for row in """
Eiffel Tower,Paris,tower
Louvre Museum,Paris,museum
Arc de Triomphe,Paris,monument
Bastille Square,Paris,square
Big Ben,London,tower
Tower Bridge,London,bridge
Buckingham Palace,London,palace
British Museum,London,museum
Edinburgh Castle,Edinburgh,castle
Colosseum,Rome,monument
Trevi Fountain,Rome,fountain
Pantheon,Rome,temple
Uffizi Gallery,Florence,museum
Rialto Bridge,Venice,bridge
Leaning Tower,Pisa,tower
Brandenburg Gate,Berlin,monument
Reichstag,Berlin,palace
Dom Cathedral,Cologne,cathedral
Sagrada Familia,Barcelona,cathedral
Prado Museum,Madrid,museum
Alhambra,Granada,palace
Belem Tower,Lisbon,tower
Acropolis,Athens,monument
Parthenon,Athens,temple
Hagia Sophia,Istanbul,mosque
Blue Mosque,Istanbul,mosque
Red Square,Moscow,square
Kremlin,Moscow,palace
Belvedere Palace,Vienna,palace
Little Mermaid,Copenhagen,statue
Vasa Museum,Stockholm,museum
Atomium,Brussels,monument
Skytree Tower,Tokyo,tower
Sensoji Temple,Tokyo,temple
Golden Pavilion,Kyoto,temple
Osaka Castle,Osaka,castle
Forbidden City,Beijing,palace
Pearl Tower,Shanghai,tower
Red Fort,Delhi,castle
Taj Mahal,Agra,monument
Grand Palace,Bangkok,palace
Namsan Tower,Seoul,tower
Opera House,Sydney,theatre
Harbour Bridge,Sydney,bridge
Skydome,Toronto,theatre
Statue of Liberty,New York,statue
Empire State Building,New York,tower
Central Park,New York,park
White House,Washington,palace
Lincoln Memorial,Washington,monument
Great Pyramid,Cairo,monument
Sphinx,Cairo,statue
Hassan Tower,Rabat,tower
Redeemer Statue,Rio,statue
""".strip().splitlines()
)

# The countries whose places the labels follow through a text.
CONTEXT_COUNTRIES = {"France": "ctx_france", "England": "ctx_england", "Italy": "ctx_italy",
                     "Germany": "ctx_germany", "Japan": "ctx_japan", "America": "ctx_america"}


class Animal(NamedTuple):
    """What the world knows of an animal."""

    plural: str
    kind: str
    food: str
    home: str
    does: str
    legs: int


ANIMALS: dict[str, Animal] = {
    name: Animal(*rest.split(",")[:5], int(rest.split(",")[5]))
    for name, rest in (
        row.split(":")
        for row in """
dog:dogs,mammal,meat,house,bark,4
cat:cats,mammal,fish,house,purr,4
horse:horses,mammal,grass,farm,gallop,4
cow:cows,mammal,grass,farm,graze,4
donkey:donkeys,mammal,grass,farm,graze,4
goat:goats,mammal,leaves,mountain,climb,4
pig:pigs,mammal,roots,farm,dig,4
lion:lions,mammal,meat,savanna,roar,4
tiger:tigers,mammal,meat,jungle,roar,4
wolf:wolves,mammal,meat,forest,howl,4
bear:bears,mammal,honey,forest,climb,4
fox:foxes,mammal,mice,forest,hunt,4
rabbit:rabbits,mammal,carrots,meadow,jump,4
mouse:mice,mammal,seeds,house,run,4
elephant:elephants,mammal,leaves,savanna,march,4
monkey:monkeys,mammal,bananas,jungle,climb,4
whale:whales,mammal,krill,ocean,swim,0
dolphin:dolphins,mammal,fish,ocean,swim,0
seal:seals,mammal,fish,ocean,swim,0
bat:bats,mammal,insects,cave,fly,2
python:pythons,reptile,mice,jungle,crawl,0
cobra:cobras,reptile,mice,desert,crawl,0
lizard:lizards,reptile,insects,desert,crawl,4
crocodile:crocodiles,reptile,meat,river,swim,4
turtle:turtles,reptile,leaves,ocean,swim,4
frog:frogs,amphibian,insects,river,jump,4
eagle:eagles,bird,meat,mountain,fly,2
owl:owls,bird,mice,forest,fly,2
crow:crows,bird,seeds,forest,fly,2
turkey:turkeys,bird,seeds,farm,run,2
duck:ducks,bird,seeds,river,swim,2
penguin:penguins,bird,fish,ocean,swim,2
parrot:parrots,bird,fruit,jungle,fly,2
shark:sharks,fish,meat,ocean,swim,0
herring:herrings,fish,krill,river,swim,0
pike:pikes,fish,krill,ocean,swim,0
fly:flies,insect,fruit,house,fly,6
bee:bees,insect,honey,meadow,fly,6
ant:ants,insect,seeds,forest,march,6
spider:spiders,arachnid,insects,cave,crawl,8
butterfly:butterflies,insect,fruit,meadow,fly,6
""".strip().splitlines()
    )
}
KIND_FACTS = {
    "mammal": "It has warm blood.", "reptile": "It has cold blood.", "bird": "It has feathers and lays eggs.",
    "fish": "It has fins and lives in water.", "insect": "It has six legs.",
    "amphibian": "It lives in water and on land.", "arachnid": "It has eight legs.",
}

NAMES_F = """Mary Anna Emma Julia Sophie Alice Laura Clara Nina Lucy Sarah Helen Rosa Olivia Grace Diana Eva Marie
Chloe Maria Kate Irene Charlotte Amy Ruth Ellen Martha Lily Jane Susan""".split()
NAMES_M = """John Peter David Thomas Paul James Mark Daniel Oscar Henry Simon Victor Leo Adam George Felix Hugo Martin
Louis Pierre Jack Robert Frank Jordan Tom Arthur Bruno Ivan Max Samuel""".split()
SURNAMES = """Smith Brown Miller Wilson Taylor Clark Lewis Walker Young King Wright Scott Green Baker Adams Nelson
Carter Turner Parker Collins Stewart Morris Rogers Reed Cook Bell Murphy Bailey Cooper Washington""".split()
MONTHS = "January February March April May June July August September October November December".split()
WEEKDAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
NUMBERS = """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
seventeen eighteen nineteen twenty""".split()
COLOURS = "red blue green yellow black white brown grey pink purple orange golden".split()
PROFESSIONS = """doctor teacher lawyer farmer baker nurse writer painter miner sailor soldier driver singer judge
scientist student cook guard""".split()
FOODS = """bread cheese butter rice pasta soup salad milk sugar salt flour chocolate honey coffee tea wine beer water
oil pepper garlic chicken beef fish""".split()
FOODS_PLURAL = """eggs onions tomatoes potatoes carrots apples lemons oranges bananas dates beans mushrooms peppers
olives grapes cherries nuts berries""".split()
DISHES = "soup salad cake stew omelette pie sauce curry pizza".split()
POS_ADJ = """good great excellent wonderful lovely delicious perfect brilliant amazing fantastic charming superb
friendly""".split()
NEG_ADJ = """bad terrible awful horrible boring disgusting rude dirty poor dreadful ugly disappointing nasty""".split()
POS_VERBS = "loved enjoyed liked adored recommended".split()
NEG_VERBS = "hated disliked regretted despised".split()
POS_MOODS = "happy proud glad".split()
NEG_MOODS = "sad tired afraid angry".split()
ADJECTIVES = """new small big young tall quiet strong happy sad tired hungry famous round beautiful large little
heavy bright dark cold warm rich clever brave""".split()
OBJECTS = """book letter key bag hat box coin cup lamp ball map ring watch picture basket chair bottle clock phone
coat drink ticket gift pen card flower toy photo stone knife spoon candle mirror blanket""".split()
PLACES = """park school market station garden kitchen library hotel office river forest museum church hospital shop
store beach bar farm theatre village harbour bridge castle""".split()
PAST_VERBS = """opened closed found carried lost bought sold painted cleaned watched followed moved dropped kicked
washed pulled pushed broke stole hid""".split()
GIVING = "gave handed passed showed offered sold sent brought lent returned".split()


class Sport(NamedTuple):
    """Where a sport is played, and how one scores."""

    ground: str
    scored: str
    point: str


SPORTS = {"football": Sport("pitch", "scored", "goal"), "tennis": Sport("court", "won", "set"),
          "basketball": Sport("court", "scored", "basket"), "cricket": Sport("pitch", "hit", "run"),
          "baseball": Sport("field", "hit", "run"), "rugby": Sport("pitch", "scored", "try"),
          "hockey": Sport("rink", "scored", "goal")}
TEAMS = """Lions Eagles Tigers Wolves Bears Sharks Rovers United Rangers Wanderers Giants Pirates Kings Knights Stars
Bulls""".split()
PARTIES = """Buyer Seller Tenant Landlord Company Supplier Employee Employer Borrower Lender Contractor
Client""".split()

# French: (word, gender); adjectives (masculine, feminine); verbs by person.
NOUNS_FR = [tuple(pair.split("/")) for pair in """chat/m chien/m livre/m jardin/m pain/m vin/m fromage/m four/m
village/m roi/m train/m garçon/m soleil/m coin/m jour/m pont/m bateau/m musée/m maison/f fille/f rue/f ville/f
table/f fleur/f voiture/f porte/f femme/f nuit/f main/f mer/f soupe/f pomme/f reine/f lettre/f montagne/f
lampe/f""".split()]
ADJECTIVES_FR = [tuple(pair.split("/")) for pair in """petit/petite grand/grande noir/noire vert/verte joli/jolie
blanc/blanche froid/froide content/contente chaud/chaude vieux/vieille beau/belle""".split()]
VERBS_FR = [tuple(forms.split("/")) for forms in """mange/mange/mangeons/mangent regarde/regarde/regardons/regardent
aime/aime/aimons/aiment cherche/cherche/cherchons/cherchent prend/prends/prenons/prennent
trouve/trouve/trouvons/trouvent porte/porte/portons/portent achète/achète/achetons/achètent
donne/donne/donnons/donnent voit/vois/voyons/voient vend/vends/vendons/vendent
prépare/prépare/préparons/préparent quitte/quitte/quittons/quittent""".split()]
PLACES_FR = """dans le jardin|dans la rue|sur la table|à Paris|dans la maison|près de la mer|à la gare|au marché
sous la table|dans la cuisine|le soir|pendant la nuit|tous les jours|avec ses amis|chez ma tante""".replace(
    "\n", "|").split("|")
LANDMARKS_FR = [("La tour Eiffel", "Paris", "France"), ("Le musée du Louvre", "Paris", "France"),
                ("Le Colisée", "Rome", "Italy"), ("La tour de Londres", "Londres", "England"),
                ("La porte de Brandebourg", "Berlin", "Germany")]
CAPITALS_FR = [("France", "Paris"), ("Belgique", "Bruxelles"), ("Russie", "Moscou"), ("Suisse", "Berne"),
               ("Pologne", "Varsovie")]

# Code.
VARIABLES = """x y n i total count result value items data name index size text price score key left right width height
temp""".split()
FUNCTIONS = """add compute find_max get_name load_data sort_items parse_text count_words update print_total make_list
check_value read_file merge filter_items area run build""".split()
MODULES = "math random os sys json time re numpy pandas".split()
CLASSES = "Dog Cat Bank Player User Car".split()

# Ordinary words and what they are, wherever they stand in English prose.
WORD_CLASSES = {
    "det": """the a an this that these those its his her their my our your every each some The A An This That These
        Those Its His Her Their My Our Your Every Each Some""",
    "prep": """in on at of to from with by near under over for into through between behind across about against In On
        At Of To From With By Near Under Over For After Before after before during During without""",
    "pron": """it he she they we I you It He She They We You him them me us who which herself himself""",
    "pron_f": "she She her Her herself", "pron_m": "he He him his His himself",
    "conj": "and or but because when while if so And Or But Because When While If So although Although",
    "noun": "sister brother uncle aunt guide house king people parents children cousins sisters friends shops",
    "noun_plural": "people parents children cousins sisters friends shops",
    "profession": "king",
    "verb": """is are was were be been am has have had do does did will would can could must should pay speak speaks
        learn learns understand understands""",
    "verb_past": """lived worked met sat waited stood talked ate went came walked saw visited arrived stayed slept
        danced wanted spoke learned understood forgot ran told decided smiled thanked""",
    "be_form": "is are was were be been am",
    "negation": "not never no nothing nobody No Never cannot nor neither Neither None",
    "adv": """very really quickly slowly often always usually also then there here again today too quite still soon
        finally suddenly quietly carefully yesterday""",
}
WORD_CLASSES_FR = {
    "det": "le la les un une des ma mon mes son sa ses ce cette Le La Les Un Une Des Mon Ma Son Sa Ce Cette l",
    "prep": "à de dans sur avec pour du au en sous chez près Dans Sur Avec Pour Sous pendant",
    "pron": "je tu il elle nous vous ils elles Je Tu Il Elle Nous Vous Ils Elles on On se J",
    "fr_fem": "la La une Une ma Ma sa Sa cette Cette", "fr_masc": "le Le un Un mon Mon ce Ce",
    "conj": "et ou mais parce que quand car", "negation": "ne pas jamais n rien",
    "verb": "est sont trouve se", "be_form": "est sont",
}

# ruff: noqa: SIM905 - word lists read better as running text
"""The word lists behind the pocket model's documents. Data only; `words.py` says which split a word belongs to."""

FIRST_NAMES = (
    "Ada Alan Alice Amir Ana Anton Aria Arthur Bella Ben Boris Carl Carmen Cecil Chen Clara Daniel Daria David Dina "
    "Edith Elena Elias Emil Emma Erik Eva Felix Fiona Frank Grace Greta Hana Hans Harry Helen Henry Hugo Ida Ines Ira "
    "Iris Ivan Jack Jana Jane Jonas Jorge Julia Kai Karim Kate Kurt Lara Laura Lena Leo Liam Lina Lisa Louis Lucy "
    "Luis Maria Marco Mark Marta Max Maya Mia Mila Mina Nadia Nina Noah Nora Olga Oliver Omar Oscar Paul Pedro Peter "
    "Petra Priya Quinn Rachel Ravi Rita Robert Rosa Ruth Sam Sara Simon Sofia Stefan Tara Theo Thomas Tina Tom Uma "
    "Vera Victor Wanda Will Yara Yuri Zara Zoe"
).split()

SURNAMES = (
    "Adler Abbott Allen Archer Baker Barnes Becker Bell Bennett Berg Bishop Blake Bond Brandt Brooks Brown Carter "
    "Chan Clark Cole Cooper Cruz Dalton Davis Dean Diaz Dixon Doyle Drake Duncan Ellis Evans Farmer Fischer Fletcher "
    "Ford Foster Fox Frost Garcia Gibson Grant Graves Green Gupta Haas Hall Harper Hayes Hill Hoffman Holt Howard "
    "Hughes Hunt Jensen Jones Kaplan Keller Kelly Khan Kim Klein Knight Koch Kumar Lang Larsen Lee Lopez Marsh Mason "
    "Mayer Mendez Miller Moore Moreno Morgan Murphy Nash Nelson Novak Olsen Ortiz Owens Palmer Park Patel Perez Pike "
    "Porter Price Ramos Reed Rivera Rossi Roth Russo Santos Schmidt Shaw Silva Singh Snow Stein Stone Suzuki Tanaka "
    "Taylor Turner Vargas Vogel Wagner Walsh Ward Weber Wells West White Wolf Wood Wright Yang Young Zimmer"
).split()

CITIES = (
    "Amsterdam Athens Austin Bergen Berlin Bern Boston Bristol Cairo Chicago Cork Dallas Delhi Denver Dublin Geneva "
    "Ghent Graz Hamburg Helsinki Houston Kyoto Lagos Leeds Leipzig Lima Lisbon London Lyon Madrid Malmo Manila Miami "
    "Milan Munich Nairobi Naples Oslo Oxford Paris Perth Porto Prague Quito Reno Riga Rome Seattle Seoul Sofia Sydney "
    "Tallinn Tampa Tokyo Toronto Tunis Turin Utrecht Vienna Vilnius Warsaw York Zagreb Zurich"
).split()

TRADES = (
    "Automation Bakery Bicycles Books Cables Ceramics Chemicals Clinics Coatings Copper Design Electric Energy "
    "Engineering Farms Foods Freight Furniture Glass Hardware Hotels Imports Instruments Labs Lighting Logistics Media "
    "Metals Mills Motors Optics Packaging Paper Pharma Plastics Pumps Robotics Sensors Shipping Software Solar Steel "
    "Studios Supply Systems Textiles Timber Toys Trading Valves Vision Water Wind Works"
).split()

COMPANY_ENDINGS = ["", "", " Ltd", " Inc", " GmbH", " Group"]

MATERIALS = (
    "aluminium bamboo black blue brass bronze carbon ceramic chrome clear copper cotton dark felt flat foam glass gold "
    "green grey heavy iron leather light linen long marble narrow nickel nylon oak orange paper pine plastic red round "
    "rubber silver silk slim small soft steel stone thick thin tin titanium velvet violet walnut white wide wooden "
    "wool yellow zinc"
).split()

THINGS = (
    "adapters axles bags balls bars baskets batteries beams bearings belts bolts boots bottles bowls boxes brackets "
    "brushes buckets buttons cables caps chains chairs clamps coats coils cups discs doors drums fans filters flanges "
    "frames fuses gaskets gears gloves grips handles hinges hooks hoses jars joints keys knobs labels lamps lenses "
    "levers lids locks mats motors mugs nails nozzles nuts panels pans pins pipes plates plugs pulleys pumps racks "
    "rails rings rods rolls ropes rugs screws seals shelves sheets sleeves springs stands straps switches tables tanks "
    "tiles trays tubes valves vases washers wheels wires"
).split()

MACHINES = (
    "boiler chiller compressor conveyor crane dryer elevator fan feeder furnace gate generator heater kiln lathe "
    "loader mill mixer motor oven press pump reactor robot router scanner separator shredder sorter tank turbine "
    "valve welder"
).split()

WEEKDAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]

MONTHS = ("January February March April May June July August September October November December").split()

COMMON_WORDS = (
    "about above account address after again agent alarm amount answer argument arrival august balance before began "
    "behind between bottom breakfast bridge brother building business careful carried change chapter children circle "
    "colour company complete contact control correct country current customer december delivery describe "
    "description design different direction discover document double during early earth east eight either email "
    "engine enough error evening every example exchange extract family february field figure filter final finger "
    "flower follow forest forward friend friday function garden general given grand ground group happen harbour "
    "hundred import include information inside instrument invoice island issue january journey kitchen ladder language "
    "large later letter library listen little location machine manager market material meaning measure message method "
    "middle minute monday morning mountain nature neighbour never nothing notice number object observe office opened "
    "orchard order other outside pallet parameter parcel payment people person picture planet please point power "
    "present pressure price priority problem process product project property question quick reading receive reference "
    "remember repeat report request required result return river saturday school season second sensor september "
    "service settings seven several shadow shift should silent simple single sister small something speed spring "
    "station status store street string subject subtotal success summer sunday supplier support surface system teacher "
    "temperature thank thirty thought thousand thursday ticket together tomorrow total travel tuesday under update "
    "urgent value vehicle vendor village visit water weather wednesday weight window winter without wonder world "
    "yellow yesterday"
).split()

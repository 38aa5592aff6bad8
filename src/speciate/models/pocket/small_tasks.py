"""Tasks without a document: arithmetic, small talk, repeating, counting, and looking values up in a list."""

from speciate.models.pocket.task import Task, Turn, task_of_turns
from speciate.models.pocket.words import WordSource, is_held_out

FALLBACK = "I am a very small model. I can extract fields, answer questions about a text, do small sums and call tools."

_SUM_FORMS = ("What is {a} {sign} {b}?", "{a} {sign} {b} =", "Compute {a} {sign} {b}.", "What is {a} {word} {b}?")
_SIGNS = (("+", "plus"), ("-", "minus"), ("*", "times"))
_NUM_PRODUCT_DIGITS = 10

_SMALL_TALK = (
    (("Hello", "Hello!", "Hi", "Hi there", "Hey", "Good morning"), "Hello! How can I help you?"),
    (("How are you?", "How are you doing?", "How do you do?"), "I am well, thank you. How can I help you?"),
    (("Who are you?", "What are you?", "What is your name?", "Introduce yourself."), "I am Pocket, " + FALLBACK[5:]),
    (("What can you do?", "Help", "Help me", "How can you help me?"), FALLBACK[27:]),
    (("Thanks", "Thank you!", "Thank you very much", "Great, thanks"), "You are welcome."),
    (("Bye", "Goodbye", "See you later", "Good night"), "Goodbye!"),
    (("Say hello", "Say hi", "Greet me"), "Hello!"),
    (
        ("Tell me a joke", "Tell me a joke about cats.", "Make me laugh"),
        "Why did the byte cross the bus? To get to the other side.",
    ),
    (("ping", "test", "Are you there?"), "I am here."),
)
_OFF_TOPIC = (
    "Write a poem about {x}.",
    "Write me {n} poems about {x} {y}.",
    "Tell me about {x}.",
    "Explain {x} {y} to me.",
    "What do you think of {x}?",
    "Who is {x} {y}?",
    "Translate {x} into {y}.",
    "Write a story about {x} and {y}.",
    "What is the meaning of {x}?",
    "Why is {x} {y}?",
    "How do I make {x}?",
    "Summarise {x} {y}.",
)


def arithmetic_task(words: WordSource, num_turns: int = 1) -> Task:
    """Sums and differences of numbers to 99 and products to 9 x 9; no pair is in both splits but the products."""
    return task_of_turns("arithmetic", [_sum_turn(words) for _ in range(num_turns)])


def small_talk_task(words: WordSource, num_turns: int = 1) -> Task:
    """Greetings with set answers, and an honest refusal of what lies beyond the model."""
    return task_of_turns("small_talk", [small_talk_turn(words) for _ in range(num_turns)])


def small_talk_turn(words: WordSource) -> Turn:
    if words.rng.random() < 0.4:
        x, y = words.invented_word(), words.item()
        return Turn(
            words.rng.choice(_OFF_TOPIC).format(x=words.rng.choice((x, y)), y=y, n=words.rng.randint(2, 9)), FALLBACK
        )
    questions, answer = words.rng.choice(_SMALL_TALK)
    question = words.rng.choice(questions)
    return Turn(question if words.rng.random() < 0.7 else question.lower(), answer)


def repeat_task(words: WordSource, target_tokens: int, num_turns: int = 1) -> Task:
    """Saying a text again, word for word: the prompt and the answer are each about `target_tokens` long."""
    return task_of_turns("repeat", [_repeat_turn(words, target_tokens) for _ in range(num_turns)])


def count_task(words: WordSource, num_turns: int = 1) -> Task:
    """Counting up from one number to another: three to thirteen numbers, all under 100."""
    return task_of_turns("count", [_count_turn(words) for _ in range(num_turns)])


def lookup_task(words: WordSource, target_tokens: int, num_turns: int = 1) -> Task:
    """Finding the value of a key in a list of random keys and values."""
    num_entries = max(2, target_tokens // 9)
    entries = {words.nonsense(): words.nonsense() for _ in range(num_entries)}
    table = "\n".join(f"{key}: {value}" for key, value in entries.items())
    keys = words.rng.choices(list(entries), k=num_turns)
    turns = [Turn(f"What is {key}?", entries[key]) for key in keys]
    turns[0] = Turn(f"{table}\n\n{turns[0].question}", turns[0].answer)
    return task_of_turns("lookup", turns)


def _sum_turn(words: WordSource) -> Turn:
    a, b, sign, word = _operands(words)
    answer = {"+": a + b, "-": a - b, "*": a * b}[sign]
    return Turn(words.rng.choice(_SUM_FORMS).format(a=a, b=b, sign=sign, word=word), str(answer))


def _operands(words: WordSource) -> tuple[int, int, str, str]:
    wants_held_out = words.split == "held_out"
    while True:
        sign, word = words.rng.choice(_SIGNS)
        if sign == "*":
            return words.rng.randrange(_NUM_PRODUCT_DIGITS), words.rng.randrange(_NUM_PRODUCT_DIGITS), sign, word
        most = words.rng.choice((20, 100))
        b, a = sorted((words.rng.randrange(most), words.rng.randrange(most)))
        if sign == "+" and words.rng.random() < 0.5:
            a, b = b, a
        if is_held_out(f"{a}{sign}{b}") == wants_held_out:
            return a, b, sign, word


def _repeat_turn(words: WordSource, target_tokens: int) -> Turn:
    text = " ".join(_any_word(words) for _ in range(max(1, target_tokens // 4)))
    return Turn(f"{words.rng.choice(('Repeat', 'Repeat after me', 'Say'))}: {text}", text)


def _any_word(words: WordSource) -> str:
    draw = words.rng.choice((words.nonsense, words.first_name, words.invented_word, words.item, words.clock_time))
    return draw()


def _count_turn(words: WordSource) -> Turn:
    first = words.rng.randrange(60)
    last = first + words.rng.randint(2, 12)
    answer = ", ".join(str(number) for number in range(first, last + 1))
    return Turn(f"Count from {first} to {last}.", answer)

"""tests/golden/distill.json: divergences from an expert's distribution, with the gradients of hidden states and head.

Whole distributions: TRL's GKDTrainer.generalized_jsd_loss, of which beta = 0 is KL(expert || student) and beta = 1 is
KL(student || expert). TRL divides by the batch; the sum over states is taken here. Kept actions: the expert's logits
outside its k most probable actions are set to minus infinity, which is the same distribution as log-softmax over the k,
and torch.distributions' own formulas say the rest; the terms that are 0 times infinity are left out by hand.
"""

import torch
from common import GOLDEN, generator, numbers, write_json
from trl.experimental.gkd import GKDTrainer

STATES, WIDTH, VOCAB = 7, 6, 11
WHOLE = [("forward_kl", 0.0), ("reverse_kl", 1.0), ("jensen_shannon", 0.5), ("jensen_shannon", 0.1)]


def gradients(student, head, make) -> dict:
    hidden, weight = student.clone().requires_grad_(), head.clone().requires_grad_()
    loss = make(hidden @ weight.T)
    loss.backward()
    return {"sum": loss.item(), "grad_hidden": numbers(hidden.grad), "grad_head": numbers(weight.grad)}


def kept(student_logits, expert_logits, k: int, weight: float | None, temperature: float) -> torch.Tensor:
    """Forward KL, or Jensen-Shannon with `weight`, to the renormalised k most probable actions; float64 inside."""
    q = (student_logits.double() / temperature).log_softmax(-1)
    ids = (expert_logits / temperature).topk(k, -1).indices
    p = torch.full_like(q, -torch.inf)
    p = p.scatter(-1, ids, (expert_logits.double() / temperature).gather(-1, ids).log_softmax(-1))
    inside = p.isfinite()
    p_safe = p.masked_fill(~inside, 0.0)
    if weight is None:
        return (p.exp() * (p_safe - q)).masked_fill(~inside, 0.0).sum()
    mixture = (weight * p.exp() + (1 - weight) * q.exp()).log()
    expert = (p.exp() * (p_safe - mixture)).masked_fill(~inside, 0.0).sum()
    return weight * expert + (1 - weight) * (q.exp() * (q - mixture)).sum()


def make() -> None:
    draw = generator(73)
    student, head = torch.randn(STATES, WIDTH, generator=draw), torch.randn(VOCAB, WIDTH, generator=draw)
    expert, expert_head = torch.randn(STATES, WIDTH, generator=draw), 2.0 * torch.randn(VOCAB, WIDTH, generator=draw)
    expert[1] = student[1] * 5.0  # nearly sure of one action
    expert_logits = expert @ expert_head.T
    cases = []
    for temperature in (1.0, 0.7):
        for name, beta in WHOLE:
            def whole(logits, beta=beta, temperature=temperature):
                return GKDTrainer.generalized_jsd_loss(
                    logits[None], expert_logits[None], beta=beta, temperature=temperature, reduction="sum"
                )
            about = {"loss": name, "weight": beta, "top_k": 0, "temperature": temperature}
            cases.append(about | gradients(student, head, whole))
        for k, weight in ((1, None), (4, None), (4, 0.5), (4, 0.9), (VOCAB, 0.5)):
            def some(logits, k=k, weight=weight, temperature=temperature):
                return kept(logits, expert_logits, k, weight, temperature)
            name = "forward_kl" if weight is None else "jensen_shannon"
            about = {"loss": name, "weight": weight, "top_k": k, "temperature": temperature}
            cases.append(about | gradients(student, head, some))
    q = (student @ head.T).log_softmax(-1)
    agree = (student @ head.T).argmax(-1) == expert_logits.argmax(-1)
    write_json(GOLDEN / "distill.json", {
        "student": numbers(student), "head": numbers(head), "expert": numbers(expert),
        "expert_head": numbers(expert_head), "entropy": -(q.exp() * q).sum().item(), "correct": int(agree.sum()),
        "cases": cases,
    })

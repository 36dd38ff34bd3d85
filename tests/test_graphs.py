"""The bench's graphs and its GCN."""

import networkx
import pytest
import torch

from snippets.lab.data import seeded
from snippets.lab.graphs import Graph, block_model, fit_gcn, gcn, hit_rate, karate_club


def blocks(seed=0, sizes=(20, 30), **options):
    options = {"within": 0.5, "between": 0.1, "signal": 2.0, "per_class": 4} | options
    return block_model(sizes, generator=seeded(seed), **options)


def linked(graph):
    """The adjacency matrix (N, N), by hand."""
    matrix = torch.zeros(len(graph), len(graph), dtype=torch.float64)
    for source, target in graph.edge_index.T.tolist():
        matrix[target, source] += 1
    return matrix


class TestGraphs:
    @pytest.mark.parametrize("graph", [blocks(), karate_club()], ids=["blocks", "karate"])
    def test_edges_go_both_ways_once_and_never_in_a_loop(self, graph):
        matrix = linked(graph)
        assert (matrix == matrix.T).all()
        assert matrix.max() == 1
        assert (matrix.diag() == 0).all()

    def test_karate_club_is_networkx_s(self):
        graph, club = karate_club(), networkx.karate_club_graph()
        matrix = torch.tensor(networkx.to_numpy_array(club, weight=None))
        assert (linked(graph) == matrix).all()
        assert graph.labels.tolist() == [
            ["Mr. Hi", "Officer"].index(club.nodes[n]["club"]) for n in club
        ]
        assert (graph.features == torch.eye(34)).all()

    def test_each_class_has_its_labelled_nodes(self):
        for graph, each in ((blocks(), 4), (karate_club(per_class=3), 3)):
            assert graph.labels[graph.train].bincount().tolist() == [each] * 2
            assert (graph.test == ~graph.train).all()
            assert graph.classes == 2

    def test_a_seed_is_a_graph(self):
        one, same, other = blocks(0), blocks(0), blocks(1)
        assert (one.features == same.features).all()
        assert (one.edge_index == same.edge_index).all()
        assert not torch.equal(one.edge_index, other.edge_index)
        assert not torch.equal(karate_club(seed=0).train, karate_club(seed=1).train)

    def test_edges_have_their_probabilities(self):
        graph = blocks(sizes=(300, 300), within=0.2, between=0.05)
        matrix = linked(graph)
        assert matrix[:300, 300:].mean() == pytest.approx(0.05, abs=0.005)
        assert matrix[:300, :300].mean() == pytest.approx(0.2, abs=0.01)

    def test_features_have_their_means(self):
        graph = blocks(sizes=(5000, 5000), within=0.0, between=0.0)
        means = torch.stack([graph.features[graph.labels == c].mean(0) for c in (0, 1)])
        torch.testing.assert_close(means, 2 * torch.eye(2, 16).double(), rtol=0, atol=0.1)

    def test_propagation_by_hand(self):
        edges = torch.tensor([[0, 1], [1, 0]])
        nodes = torch.zeros(3)
        graph = Graph(edges, nodes[:, None].double(), nodes.long(), nodes.bool())
        expected = torch.tensor([[0.5, 0.5, 0], [0.5, 0.5, 0], [0, 0, 1]]).double()
        torch.testing.assert_close(graph.propagation(), expected)

    def test_induced_keeps_the_edges_between_kept_nodes(self):
        graph = blocks()
        kept = torch.rand(50, generator=seeded(1)) < 0.6
        part = graph.induced(kept)
        assert (linked(part) == linked(graph)[kept][:, kept]).all()
        assert (part.features == graph.features[kept]).all()
        assert (part.train == graph.train[kept]).all()


class TestGCN:
    def test_is_two_products_around_a_relu(self):
        graph = blocks()
        model = gcn(16, 8, 2, generator=seeded(0))
        a = graph.propagation()
        first, second = (layer.weight for layer in model.layers)  # biases start at 0
        expected = a @ ((a @ graph.features @ first.T).relu() @ second.T)
        torch.testing.assert_close(model(graph.features, a), expected)
        assert model.hidden(graph.features, a).shape == (50, 8)

    def test_without_edges_it_is_an_mlp(self):
        graph = blocks(within=0.0, between=0.0)
        model = gcn(16, 8, 2, generator=seeded(0))
        alone = model(graph.features[:1], torch.ones(1, 1, dtype=torch.float64))
        all_of_them = model(graph.features, graph.propagation())
        torch.testing.assert_close(all_of_them[:1], alone)

    def test_numbering_of_the_nodes_does_not_matter(self):
        graph = blocks()
        order = torch.randperm(50, generator=seeded(0))
        model, a = gcn(16, 8, 2, generator=seeded(0)), graph.propagation()
        torch.testing.assert_close(
            model(graph.features[order], a[order][:, order]), model(graph.features, a)[order]
        )

    def test_learns_freezes_and_repeats(self):
        graph = blocks()
        models = [
            fit_gcn(gcn(16, 8, 2, generator=seeded(0)), graph, generator=seeded(1))
            for _ in range(2)
        ]
        logits, same = (m(graph.features, graph.propagation()) for m in models)
        assert hit_rate(logits, graph.labels, graph.test) > 0.8
        assert (logits == same).all()
        assert not logits.requires_grad

    def test_an_extra_term_is_felt(self):
        graph = blocks()
        model = gcn(16, 8, 2, generator=seeded(0))
        fit_gcn(model, graph, generator=seeded(1), extra=lambda hidden: 10 * hidden.square().mean())
        assert model.hidden(graph.features, graph.propagation()).abs().mean() < 0.2

    def test_hit_rate_counts_where_it_is_told(self):
        logits = torch.eye(3)
        where = torch.tensor([True, True, False])
        assert hit_rate(logits, torch.tensor([0, 0, 0]), where) == 0.5

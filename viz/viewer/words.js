// @ts-check
// Words: what scores, shares and other words of the page mean, as in docs/glossary.md.
"use strict";

const WORDS = [
  ["replacement", "score: of the influence that ends at tokens or errors, the share that ends at tokens"],
  ["completeness", "score: share of the influence arriving at nodes that does not come from errors"],
  ["weight", "the direct effect of a source on a target: its vector, through the frozen model, read by the target's covector"],
  ["share", "the size of a weight over the absolute sum of its row; here with the weight's sign"],
  ["influence", "a node's effect on the targets over all paths, by shares and without sign; that along an edge is its share of the influence on its target"],
  ["row", "all weights into one target"],
  ["activation", "a feature's value after the nonlinearity, which multiplies its decoder row"],
  ["error", "what a dictionary leaves of an MLP's output at one layer and position"],
  ["bias", "every constant that enters at one layer, MLP outputs at prefix positions included"],
  ["pruning", "keeping the nodes and edges that hold a given share of influence"],
  ["edges drawn", "the strongest of the edges that pruning leaves; scores and lists count all that it leaves"],
  ["path", "a sequence of edges from a token or error to a target; its strength is the product of shares"],
  ["supernode", "nodes that are read as one, with a name; called a group in headwater's own files"],
];

function wordsPanel() {
  const rows = WORDS.map(([word, meaning]) => element("tr", {}, element("th", { scope: "row" }, word), element("td", {}, meaning)));
  return element("table.words", {}, element("caption", {}, "Words"), element("tbody", {}, ...rows));
}

# Statistics of tests about chains, written out from their definitions: G, Pearson's X-squared, df by support.
# Usage: Rscript tests/oracles/make_chain_tests.R tests/oracles (writes chain_tests.json; made with R 4.2.2)
# No function of a package on Markov chains is used: chisq.test() gives X-squared a table, the rest is here.
library(jsonlite)
folder <- commandArgs(TRUE)[1]
suppressWarnings(RNGkind("Mersenne-Twister", "Inversion", "Rejection"))
set.seed(4)

draw <- function(n, p) {
  out <- integer(n); out[1] <- sample(nrow(p), 1)
  for (t in 2:n) out[t] <- sample(nrow(p), 1, prob = p[out[t - 1], ])
  out
}
# The third state never follows the first: the support of its row is smaller.
p <- rbind(c(.7, .3, 0, 0), c(.2, .4, .3, .1), c(.1, .3, .5, .1), c(.25, .25, .25, .25))
sequences <- lapply(c(30, 12, 25, 18, 40, 22, 9, 33), draw, p = p)
group <- c("a", "a", "b", "b", "c", "c", "a", "b")

# A table a layer; rows or columns without counts are no possibility, so they go before anything is computed.
two <- function(table) {
  table <- table[rowSums(table) > 0, colSums(table) > 0, drop = FALSE]
  if (nrow(table) < 2 || ncol(table) < 2) return(c(g = 0, x2 = 0, df = 0))
  test <- suppressWarnings(chisq.test(table, correct = FALSE))
  e <- test$expected
  full <- table > 0
  c(g = 2 * sum(table[full] * log(table[full] / e[full])), x2 = unname(test$statistic), df = unname(test$parameter))
}
report <- function(tables) {
  s <- sapply(tables, two)
  list(g = s["g", ], pearson = s["x2", ], df = s["df", ],
       p_g = pchisq(sum(s["g", ]), sum(s["df", ]), lower.tail = FALSE),
       p_pearson = pchisq(sum(s["x2", ]), sum(s["df", ]), lower.tail = FALSE))
}
f <- function(x) factor(x, 1:4)
pairs <- do.call(rbind, Map(function(s, g) data.frame(from = head(s, -1), to = tail(s, -1), group = g,
  block = floor((seq_along(s[-1]) - 1) * 3 / (length(s) - 1))), sequences, group))
triples <- do.call(rbind, lapply(sequences, function(s) {
  n <- length(s)
  data.frame(a = s[1:(n - 2)], b = s[2:(n - 1)], c = s[3:n])
}))
out <- list(
  meta = list(R = R.version.string),
  sequences = sequences, group = group,
  homogeneity = report(lapply(1:4, function(i) with(subset(pairs, from == i), table(factor(group, c("a", "b", "c")), f(to))))),
  stationarity = report(lapply(1:4, function(i) with(subset(pairs, from == i), table(factor(block, 0:2), f(to))))),
  order_0 = report(list(with(pairs, table(f(from), f(to))))),
  order_1 = report(lapply(1:4, function(i) with(subset(triples, b == i), table(f(a), f(c))))),
  holm = list(p = c(.01, .04, .03, .2, .005), adjusted = p.adjust(c(.01, .04, .03, .2, .005), "holm"))
)
write_json(out, file.path(folder, "chain_tests.json"), digits = NA, auto_unbox = TRUE)

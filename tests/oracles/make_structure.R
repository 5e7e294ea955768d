# Make the reference values of tests/cluster/test_dip.py, test_gap_statistic.py and test_concordance.py with R.
# Usage: Rscript tests/oracles/make_structure.R tests/oracles
# Writes structure.json. Made with R 4.2.2, diptest 0.76-0, cluster 2.1.4, mclust 6.0.0.
suppressMessages({library(diptest); library(cluster); library(mclust); library(jsonlite)})
folder <- commandArgs(TRUE)[1]
gd <- c("GPT-2" = 2.458, "Phi-1.5" = 1.764, "DistilGPT-2" = 1.577, "Qwen2.5-0.5B" = .079, "OPT-125M" = .074, "Pythia-70M" = .059, "Pythia-160M" = .039, "TinyLlama-1.1B" = .021)
# Samples for the dip: small, tied, lattices, mixtures, long
set.seed(4)
samples <- list(gd_raw = unname(gd), gd_log = unname(log(gd)), waiting = faithful$waiting, rivers = as.numeric(rivers),
  two = c(0, 1), twice = c(1, 1, 2, 2), lattice = as.numeric(1:12), one_apart = c(0, 0, 0, 0, 5), three = c(.3, .1, .9))
for (i in 1:12) samples[[paste0("normal", i)]] <- rnorm(2 + i)
for (i in 1:12) samples[[paste0("ties", i)]] <- as.numeric(sample(0:(1 + i %/% 2), 3 + 2 * i, TRUE))
for (i in 1:8) samples[[paste0("mixture", i)]] <- round(c(rnorm(4 * i), rnorm(3 * i, 4)), i %% 4)
for (i in 1:4) samples[[paste0("long", i)]] <- list(rexp(90), round(rt(120, 3), 1), rbeta(150, .4, .4), rpois(200, 3))[[i]]
samples <- Filter(function(x) length(unique(x)) > 1, samples)
dips <- lapply(names(samples), function(s) { d <- suppressMessages(dip.test(samples[[s]])); list(name = s, values = I(samples[[s]]), statistic = unname(d$statistic), p = unname(d$p.value)) })
# Gap statistic of Ward's clusters, with its own reference draws (rebuilt from the same random numbers)
ward <- function(x, k) list(cluster = cutree(hclust(dist(x), "ward.D2"), k))
gap <- function(x, K, B, space, power) {
  set.seed(11); g <- clusGap(x, ward, K, B = B, d.power = power, spaceH0 = space, verbose = FALSE)
  set.seed(11); xs <- scale(x, TRUE, FALSE); V <- svd(xs, nu = 0)$v; m <- rep(attr(xs, "scaled:center"), each = nrow(x))
  r <- apply(if (space == "scaledPCA") xs %*% V else xs, 2, range)
  draws <- lapply(1:B, function(b) { z <- apply(r, 2, function(M, nn) runif(nn, M[1], M[2]), nn = nrow(x)); (if (space == "scaledPCA") tcrossprod(z, V) else z) + m })
  rules <- c("firstSEmax", "Tibs2001SEmax", "globalSEmax", "firstmax", "globalmax")
  list(data = unname(x), space = space, power = power, references = draws, logW = unname(g$Tab[, "logW"]), E.logW = unname(g$Tab[, "E.logW"]), gap = unname(g$Tab[, "gap"]), SE = unname(g$Tab[, "SE.sim"]),
       k = as.list(sapply(rules, function(r) maxSE(g$Tab[, "gap"], g$Tab[, "SE.sim"], r))))
}
set.seed(5)
cloud <- matrix(rnorm(26), 13); planted <- rbind(matrix(rnorm(12), 6), matrix(rnorm(14, 5), 7))
gaps <- list(gap(cloud, 4, 6, "scaledPCA", 1), gap(planted, 4, 6, "scaledPCA", 2), gap(planted, 4, 6, "original", 1), gap(matrix(log(gd), ncol = 1), 4, 6, "scaledPCA", 1))
# maxSE alone, on curves that part the rules
curves <- lapply(1:30, function(i) { f <- round(cumsum(rnorm(7, .1, .3)), 3); s <- round(runif(7, 0, .4), 3); list(gap = f, SE = s, k = as.list(sapply(c("firstSEmax", "Tibs2001SEmax", "globalSEmax", "firstmax", "globalmax"), function(r) maxSE(f, s, r)))) })
# Adjusted Rand index
pairs <- lapply(1:20, function(i) { n <- 4 + i; a <- sample(1:(1 + i %% 4), n, TRUE); b <- sample(1:(2 + i %% 5), n, TRUE); list(a = a, b = b, value = adjustedRandIndex(a, b)) })
meta <- list(R = R.version.string, diptest = as.character(packageVersion("diptest")), cluster = as.character(packageVersion("cluster")), mclust = as.character(packageVersion("mclust")))
write_json(list(meta = meta, dips = dips, gaps = gaps, rules = curves, ari = pairs), file.path(folder, "structure.json"), digits = I(17), auto_unbox = TRUE, null = "null")

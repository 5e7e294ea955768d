# Reference values for bootstrapped cluster stability: fpc's clusterboot with the draws it used.
# Usage: Rscript make_clusterboot.R DATADIR OUT.json (DATADIR holds planted.csv and cloud.csv)
# Draws are recorded inside the clustering function that clusterboot calls: in "boot" and "subset" it gets
# rows of the data, told apart by their names; in "noise" and "jitter" the changed data themselves.
suppressMessages({library(fpc); library(jsonlite)})
args <- commandArgs(TRUE)
read <- function(f) { d <- read.csv(file.path(args[1], f), row.names = 1); as.matrix(d) }
gd <- c("GPT-2" = 2.458, "Phi-1.5" = 1.764, "DistilGPT-2" = 1.577, "Qwen2.5-0.5B" = .079, "OPT-125M" = .074, "Pythia-70M" = .059, "Pythia-160M" = .039, "TinyLlama-1.1B" = .021)
sets <- list(planted = read("planted.csv"), cloud = read("cloud.csv"), gd_ratio = matrix(log(gd), ncol = 1, dimnames = list(names(gd))))
# clusterboot takes data[bsamp, ] without drop = FALSE: one column is doubled. Distances grow by sqrt(2).
sets$gd_ratio <- cbind(sets$gd_ratio, sets$gd_ratio)

seen <- list()
tree <- function(data, k, method, noisecut = 0, ...) {
  data <- as.matrix(data)
  seen[[length(seen) + 1]] <<- unname(data)
  disthclustCBI(dist(data), k = k, method = method, noisecut = noisecut)
}
means <- function(data, k, ...) {
  data <- as.matrix(data)
  seen[[length(seen) + 1]] <<- unname(data)
  kmeansCBI(data, k = k, runs = 100)
}
dense <- function(data, eps, MinPts, ...) {
  data <- as.matrix(data)
  seen[[length(seen) + 1]] <<- unname(data)
  dbscanCBI(data, eps = eps, MinPts = MinPts)
}
# Rows of the data from their first column, which holds no value twice.
# clusterboot drops repeated draws before; the first one again fills a row up to n draws.
rows <- function(x, data) match(x[, 1], data[, 1]) - 1
fill <- function(i, n) c(i, rep(i[1], n - length(i)))
case <- function(name, scheme, method, B = if (scheme %in% c("noise", "jitter")) 8 else 25, multiple = FALSE, noisemethod = FALSE, ...) {
  data <- sets[[name]]
  seen <<- list()
  f <- switch(method, kmeans = means, dbscan = dense, tree)
  more <- list(...)
  if (!(method %in% c("kmeans", "dbscan"))) more$method <- method
  r <- suppressWarnings(do.call(clusterboot, c(list(data, B = B, bootmethod = scheme, clustermethod = f, multipleboot = multiple, noisemethod = noisemethod, count = FALSE, seed = 7), more)))
  draws <- seen[-1]
  out <- list(data = name, scheme = scheme, method = method, options = list(...), multiple = multiple, partition = r$partition, clusters = r$nccl,
    jaccard = t(r[[paste0(scheme, "result")]]), mean = r[[paste0(scheme, "mean")]], dissolved = r[[paste0(scheme, "brd")]], recovered = r[[paste0(scheme, "recover")]])
  if (is.null(r$nccl)) out$clusters <- r$nc
  if (scheme == "subset") out$indices <- lapply(draws, rows, data = data)
  else if (scheme == "boot") out$indices <- lapply(draws, function(x) fill(rows(x, data), nrow(data)))
  else out$perturbed <- draws
  # In "noise" a row that was not replaced still holds its value.
  if (scheme == "noise") out$indices <- lapply(draws, function(x) ifelse(x[, 1] == data[, 1], seq_len(nrow(data)) - 1, -1))
  out
}
cases <- list()
add <- function(...) cases[[length(cases) + 1]] <<- case(...)
for (name in names(sets)) {
  k <- if (name == "gd_ratio") 2 else 3
  for (scheme in c("boot", "subset", if (name != "gd_ratio") c("noise", "jitter"))) for (method in c("ward.D2", "average")) add(name, scheme, method, k = k)
}
add("planted", "boot", "complete", k = 2); add("cloud", "boot", "single", k = 3)
add("planted", "boot", "ward.D2", k = 3, multiple = TRUE)
add("planted", "boot", "kmeans", k = 3)
add("gd_ratio", "boot", "kmeans", k = 2)
# Clusters of at most noisecut items are noise.
for (name in c("planted", "cloud")) for (scheme in c("boot", "subset", "noise", "jitter")) add(name, scheme, "average", k = 5, noisecut = 1, noisemethod = TRUE)
add("planted", "boot", "dbscan", eps = 3.2, MinPts = 3, noisemethod = TRUE)
add("cloud", "boot", "dbscan", eps = 3.2, MinPts = 4, noisemethod = TRUE)
meta <- list(R = R.version.string, fpc = as.character(packageVersion("fpc")))
write_json(list(meta = meta, data = lapply(sets, function(x) list(items = rownames(x), values = unname(x))), cases = cases), args[2], digits = NA, auto_unbox = TRUE, null = "null")

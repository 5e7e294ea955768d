# Make the reference values of tests/cluster/test_partition*.py with R.
# Usage: Rscript tests/oracles/make_clusters.R tests/oracles
# Reads cluster/planted.csv, writes clusters_partition.json. Made with R 4.2.2, mclust 6.0.0.
suppressMessages({library(mclust); library(jsonlite)})
folder <- commandArgs(TRUE)[1]
x <- as.matrix(read.csv(file.path(folder, "cluster", "planted.csv"), row.names = 1))
set.seed(7)
cloud <- matrix(round(rnorm(44), 3), 22)
tree <- function(d, method, back = identity) {
  h <- hclust(d, method)
  cuts <- lapply(1:6, function(k) unname(cutree(h, k)))
  # cutree by height refuses heights that fall
  at <- if (is.unsorted(h$height)) NULL else { q <- mean(tail(h$height, 3)[1:2]); list(h = back(q), labels = unname(cutree(h, h = q))) }
  list(height = back(h$height), merge = unname(h$merge), cuts = cuts, at = at, order = h$order)
}
# R takes centroid and median on squared distances (see ?hclust); their roots are distances of centres.
all_linkages <- function(d, euclidean) {
  out <- lapply(c(single = "single", complete = "complete", average = "average", weighted = "mcquitty"), function(m) tree(d, m))
  if (euclidean) out <- c(out, list(ward = tree(d, "ward.D2"), centroid = tree(d^2, "centroid", sqrt), median = tree(d^2, "median", sqrt)))
  out
}
pearson <- as.dist(1 - cor(t(x)))
cases <- list(planted = list(data = unname(x), euclidean = all_linkages(dist(x), TRUE), cityblock = all_linkages(dist(x, "manhattan"), FALSE),
                             chebyshev = all_linkages(dist(x, "maximum"), FALSE), correlation = all_linkages(pearson, FALSE), canberra = all_linkages(dist(x, "canberra"), FALSE)),
              cloud = list(data = cloud, euclidean = all_linkages(dist(cloud), TRUE)))
cophenetic_ward <- cor(cophenetic(hclust(dist(x), "ward.D2")), dist(x))
# Mixtures with one component have a closed form; with three, EM from mclust's own start
shapes <- c(full = "VVV", tied = "EEE", diag = "VVI", spherical = "VII")
two <- x[, 1:2]
mixtures <- do.call(rbind, lapply(names(shapes), function(s) do.call(rbind, lapply(1:3, function(k) {
  m <- suppressWarnings(Mclust(two, G = k, modelNames = if (k == 1) c(full = "XXX", tied = "XXX", diag = "XXI", spherical = "XII")[[s]] else shapes[[s]], verbose = FALSE, control = emControl(tol = c(1e-12, 1e-12), itmax = c(5000, 5000))))
  data.frame(covariance = s, k = k, bic = if (is.null(m)) NA else -m$bic, log_likelihood = if (is.null(m)) NA else m$loglik, parameters = if (is.null(m)) NA else m$df)
}))))
km <- { set.seed(1); kmeans(x, 3, nstart = 50, iter.max = 100) }
meta <- list(R = R.version.string, mclust = as.character(packageVersion("mclust")))
write_json(list(meta = meta, cases = cases, cophenetic_ward = cophenetic_ward, mixtures = mixtures, kmeans = list(within = km$tot.withinss, between = km$betweenss / km$totss, cluster = unname(km$cluster)), scaled = unname(scale(x)[,])),
           file.path(folder, "clusters_partition.json"), digits = I(15), auto_unbox = TRUE, null = "null", na = "null")

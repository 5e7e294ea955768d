# AU and BP of pvclust, with the counts per scale from which they follow. Writes multiscale.json.
# Rscript make_multiscale.R   (in tests/oracles; needs pvclust and jsonlite)
suppressMessages(library(pvclust))
library(jsonlite)

run <- function(x, linkage, distance, nboot) {
  # Items are the columns there.
  fit <- pvclust(t(x), method.hclust = linkage, method.dist = distance, nboot = nboot, iseed = 11, quiet = TRUE)
  list(
    linkage = linkage, distance = distance, nboot = nboot, r = fit$r,
    merge = fit$hclust$merge, height = fit$hclust$height,
    count = as.matrix(fit$count), edges = as.list(fit$edges)
  )
}

planted <- as.matrix(read.csv(file.path("cluster", "planted.csv"), row.names = 1))
set.seed(4)
centre <- matrix(rnorm(3 * 40), 3)
wide <- centre[rep(1:3, 4), ] + 1.5 * matrix(rnorm(12 * 40), 12)
# Shares at the ends, too few scales in use, few replicates.
r <- seq(0.5, 1.4, by = 0.1)
odd <- rbind(
  rep(1000, 10), rep(0, 10), c(rep(1000, 8), 990, 980), c(rep(0, 7), 2, 5, 9), c(999, 990, 950, rep(1000, 7)),
  c(500, 480, 450, 430, 420, 400, 390, 370, 360, 350), c(10, 20, 40, 60, 90, 130, 180, 230, 300, 380)
)
fits <- apply(odd, 1, function(n) {
  m <- pvclust:::msfit(n / 1000, r, 1000)
  list(count = n, p = as.list(m$p), se = as.list(m$se), coef = as.list(m$coef), pchi = m$pchi)
})
out <- list(
  meta = list(R = R.version.string, pvclust = as.character(packageVersion("pvclust"))),
  planted = run(planted, "average", "euclidean", 5000),
  ward = run(planted, "ward.D2", "euclidean", 1000),
  wide = c(list(data = unname(wide)), run(wide, "average", "correlation", 2000)),
  odd = list(r = r, nboot = 1000, fits = fits)
)
write(toJSON(out, digits = NA, auto_unbox = TRUE), "multiscale.json")

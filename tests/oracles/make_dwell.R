# Kaplan-Meier of dwell times with R's survival, and discrete fits by optim.
# Usage: Rscript tests/oracles/make_dwell.R > tests/oracles/dwell.json
suppressMessages({library(survival); library(jsonlite)})
RNGversion("4.0.0")
set.seed(11)
# Three states, two-step memory in none of them; sequences of 5 to 30 steps.
p <- matrix(c(.85, .1, .05, .2, .5, .3, .3, .3, .4), 3, byrow = TRUE)
sequences <- lapply(sample(5:30, 40, TRUE), function(n) {
  x <- sample(3, 1)
  while (length(x) < n) x <- c(x, sample(3, 1, prob = p[tail(x, 1), ]))
  x
})
rows <- do.call(rbind, lapply(sequences, function(x) {
  r <- rle(x); m <- length(r$lengths)
  data.frame(state = r$values, length = r$lengths, left = seq_len(m) == 1, right = seq_len(m) == m)
}))
one <- function(s, drop) {
  d <- rows[rows$state == s & !(drop & rows$left), ]
  # Under way at the end: seen to outlast length - 1 chances to leave.
  d$time <- d$length - d$right
  d <- d[d$time > 0, ]
  f <- survfit(Surv(d$time, !d$right) ~ 1)
  longest <- max(d$time)
  at <- summary(f, times = 0:longest, extend = TRUE)
  m <- summary(f, rmean = longest)$table
  loglik <- function(surv) sum(ifelse(d$right, log(surv(d$time)), log(surv(d$time - 1) - surv(d$time))))
  h <- sum(!d$right) / sum(d$time)
  nb <- optim(c(0, qlogis(h)), function(x) -loglik(function(k) pnbinom(k - 1, exp(x[1]), plogis(x[2]), lower.tail = FALSE)),
              control = list(reltol = 1e-14, maxit = 5000))
  wb <- optim(c(log(-log1p(-h)), 0), function(x) -loglik(function(k) exp(-exp(x[1]) * k^exp(x[2]))),
              control = list(reltol = 1e-14, maxit = 5000))
  list(state = s, drop = drop, stays = nrow(d), ended = sum(!d$right), survival = at$surv,
       mean = unname(m["rmean"]), median = unname(m["median"]), hazard = h,
       loglik = c(loglik(function(k) (1 - h)^k), -nb$value, -wb$value))
}
out <- list(r = R.version.string, survival = as.character(packageVersion("survival")),
            sequences = lapply(sequences, function(x) x - 1),
            states = unlist(lapply(1:3, function(s) lapply(c(TRUE, FALSE), function(d) one(s, d))), recursive = FALSE))
cat(toJSON(out, digits = NA, auto_unbox = TRUE), "\n")

# Reference values for competing ends of stays in a state, in discrete time with ties.
# survival (multi-state Aalen-Johansen, Kaplan-Meier), cmprsk (cuminc), glm and clubSandwich (CR3).
# Usage: Rscript make_cycles.R > cycles.json
suppressMessages({library(survival); library(cmprsk); library(clubSandwich); library(jsonlite)})
set.seed(408)
prompts <- 24
d <- do.call(rbind, lapply(seq_len(prompts), function(p) {
  leave <- plogis(qlogis(.25) + rnorm(1, 0, .5)); end <- .05; n <- sample(4:14, 1)
  do.call(rbind, lapply(seq_len(n), function(i) {
    cap <- sample(0:12, 1); model <- sample(c("a", "b"), 1); t <- 0; event <- 0
    h <- plogis(qlogis(leave) + .6 * (model == "b"))
    repeat {
      if (t >= cap) break
      t <- t + 1; u <- runif(1)
      if (u < h) { event <- 1; break }
      if (u < h + end) { event <- 2; break }
    }
    data.frame(prompt = p, model = model, duration = t, event = event)
  }))
}))
H <- 12
at <- 1:H
aj <- survfit(Surv(duration, factor(event, 0:2)) ~ 1, data = d)
s <- summary(aj, times = at, extend = TRUE)
km <- survfit(Surv(duration, event == 1) ~ 1, data = d)
cu <- with(d[d$duration > 0, ], cuminc(duration, event, cencode = 0))
tp <- timepoints(cu, at)$est
pp <- do.call(rbind, lapply(seq_len(nrow(d)), function(i) if (d$duration[i] > 0) {
  k <- d$duration[i]
  data.frame(prompt = d$prompt[i], model = d$model[i], duration = seq_len(k),
             reopened = as.integer(seq_len(k) == k & d$event[i] == 1),
             end_of_text = as.integer(seq_len(k) == k & d$event[i] == 2))
}))
tight <- glm.control(epsilon = 1e-14, maxit = 100)
fits <- list(
  logit = glm(reopened ~ log(duration) + model, binomial("logit"), pp, control = tight),
  cloglog = glm(reopened ~ log(duration) + model, binomial("cloglog"), pp, control = tight),
  end_of_text = glm(end_of_text ~ log(duration), binomial("logit"), pp, control = tight)
)
one <- function(m) list(coefficients = unname(coef(m)), deviance = deviance(m),
  cr3 = unname(unclass(as.matrix(vcovCR(m, cluster = pp$prompt, type = "CR3")))[, ]))
out <- list(
  meta = list(R = R.version.string, survival = as.character(packageVersion("survival")),
              cmprsk = as.character(packageVersion("cmprsk")),
              clubSandwich = as.character(packageVersion("clubSandwich"))),
  spells = d,
  survfit = list(reopened = s$pstate[, 2], end_of_text = s$pstate[, 3], n_risk = s$n.risk[, 1]),
  kaplan_meier = 1 - summary(km, times = at, extend = TRUE)$surv,
  cuminc = list(reopened = unname(tp[1, ]), end_of_text = unname(tp[2, ])),
  glm = lapply(fits, one)
)
cat(toJSON(out, digits = NA, auto_unbox = TRUE, dataframe = "columns"), "\n")
